//! Which key stands for what.

use super::EtcdError;

/// Longest part of a key between slashes.
const LONGEST: usize = 128;

/// Names of this room's own that no kind of member may have.
const KEPT: [&str; 3] = ["workers", "worker_marks", "config"];

/// All keys below one root.
#[derive(Clone, Debug)]
pub(super) struct Names {
    root: String,
}

impl Names {
    /// Keys below `root`, which begins with a slash and does not end with one.
    pub(super) fn new(root: &str) -> Result<Self, EtcdError> {
        let parts = root.strip_prefix('/').map(|rest| rest.split('/').all(is_word));
        if parts == Some(true) {
            return Ok(Self { root: root.to_owned() });
        }
        Err(EtcdError::Invalid(format!(
            "the root of etcd's keys is \"{root}\" but must be one such as /corelane, of letters, digits, . _ : @ -"
        )))
    }

    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// What the keys of all members of a kind begin with.
    pub(super) fn kind(&self, kind: &str) -> Result<String, EtcdError> {
        if !is_word(kind) || KEPT.contains(&kind) {
            return Err(EtcdError::Invalid(format!("\"{kind}\" cannot be a kind of member")));
        }
        Ok(format!("{}/{kind}/", self.root))
    }

    pub(super) fn member(&self, kind: &str, id: &str) -> Result<String, EtcdError> {
        if !is_word(id) {
            return Err(EtcdError::Invalid(format!(
                "\"{id}\" cannot name a member: 1 to {LONGEST} letters, digits, . _ : @ -"
            )));
        }
        Ok(self.kind(kind)? + id)
    }

    pub(super) fn workers(&self) -> String {
        format!("{}/workers/", self.root)
    }

    pub(super) fn worker_marks(&self) -> String {
        format!("{}/worker_marks/", self.root)
    }

    pub(super) fn configs(&self) -> String {
        format!("{}/config/", self.root)
    }

    /// The key of a dynamic setting; its name may have several parts, such as `drain/gateway-1`.
    pub(super) fn config(&self, name: &str) -> Result<String, EtcdError> {
        if !name.split('/').all(is_word) {
            return Err(EtcdError::Invalid(format!("\"{name}\" cannot name a dynamic setting")));
        }
        Ok(self.configs() + name)
    }
}

fn is_word(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:@-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lie_below_the_root() {
        let names = Names::new("/corelane/test").unwrap();
        assert_eq!(names.member("gateways", "gw-1").unwrap(), "/corelane/test/gateways/gw-1");
        assert_eq!(names.config("drain/gw-1").unwrap(), "/corelane/test/config/drain/gw-1");
        assert!(names.workers().starts_with(names.root()));
    }

    #[test]
    fn names_that_would_leave_their_place_are_refused() {
        for root in ["", "/", "corelane", "/corelane/", "/a//b", "/a b", "/\u{e4}"] {
            assert!(Names::new(root).is_err(), "{root}");
        }
        let names = Names::new("/r").unwrap();
        for kind in ["", "a/b", "workers", "worker_marks", "config"] {
            assert!(names.kind(kind).is_err(), "{kind}");
        }
        for id in ["", "a/b", "a b", "a\0", &"x".repeat(129)] {
            assert!(names.member("gateways", id).is_err(), "{id}");
        }
        for name in ["", "/", "a/", "/a", "a//b"] {
            assert!(names.config(name).is_err(), "{name}");
        }
    }
}
