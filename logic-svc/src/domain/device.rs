//! How many devices of a class a user may have connected.

/// What becomes of a login while the user is in with another device of the same class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClassPolicy {
    /// Both stay.
    #[default]
    Allow,
    /// The old one is closed.
    KickOld,
    /// The new one is refused.
    RefuseNew,
}

/// Longest name of a class in bytes.
const CLASS_MAX: usize = 32;

/// The policies of device classes; all that are not named are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DevicePolicies(Vec<(String, ClassPolicy)>);

impl DevicePolicies {
    /// Reads entries of the form `class=allow|kick_old|refuse_new`; `None` if one is not, or names a class again.
    #[must_use]
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut all: Vec<(String, ClassPolicy)> = Vec::new();
        for entry in entries.into_iter().map(str::trim).filter(|entry| !entry.is_empty()) {
            let (class, policy) = entry.split_once('=')?;
            let policy = match policy {
                "allow" => ClassPolicy::Allow,
                "kick_old" => ClassPolicy::KickOld,
                "refuse_new" => ClassPolicy::RefuseNew,
                _ => return None,
            };
            let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            let named = (1..=CLASS_MAX).contains(&class.len()) && class.bytes().all(good);
            if !named || all.iter().any(|(known, _)| known == class) {
                return None;
            }
            all.push((class.to_owned(), policy));
        }
        Some(Self(all))
    }

    /// The policy of a class.
    #[must_use]
    pub fn of(&self, class: &str) -> ClassPolicy {
        let found = self.0.iter().find(|(known, _)| known == class);
        found.map_or(ClassPolicy::Allow, |&(_, policy)| policy)
    }

    /// All that were named.
    pub fn iter(&self) -> impl Iterator<Item = (&str, ClassPolicy)> {
        self.0.iter().map(|(class, policy)| (class.as_str(), *policy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_and_others_are_allowed() {
        let list = DevicePolicies::parse(["tv=kick_old", " kiosk=refuse_new", "", "web=allow"]);
        let list = list.unwrap();
        assert_eq!(list.of("tv"), ClassPolicy::KickOld);
        assert_eq!(list.of("kiosk"), ClassPolicy::RefuseNew);
        assert_eq!((list.of("web"), list.of("")), (ClassPolicy::Allow, ClassPolicy::Allow));
        for bad in ["tv", "tv=", "=allow", "tv=kick", "a b=allow", "tv=allow,tv=allow"] {
            assert_eq!(DevicePolicies::parse(bad.split(',')), None, "{bad}");
        }
        assert_eq!(DevicePolicies::parse([format!("{}=allow", "x".repeat(33)).as_str()]), None);
    }
}
