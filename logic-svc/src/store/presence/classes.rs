//! Names of device classes as small numbers: a connection keeps two bytes of its class.

use hashbrown::HashMap;

use crate::domain::device::{ClassPolicy, DevicePolicies};

/// Classes that are told apart; clients choose names, and what comes after these is of no class.
const CLASSES_MAX: usize = 4096;

/// Classes by number; 0 is none.
#[derive(Debug)]
pub(super) struct Classes {
    names: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u16>,
    /// Policies of the first classes; all others are allowed.
    policies: Vec<ClassPolicy>,
}

impl Classes {
    /// Classes with a policy have a number from the start.
    pub(super) fn new(policies: &DevicePolicies) -> Self {
        let (names, numbers) = (vec![Box::from("")], HashMap::new());
        let mut classes = Self { names, numbers, policies: vec![ClassPolicy::Allow] };
        for (name, policy) in policies.iter() {
            if usize::from(classes.number(name)) == classes.policies.len() {
                classes.policies.push(policy);
            }
        }
        classes
    }

    /// The number of a class.
    pub(super) fn number(&mut self, name: &str) -> u16 {
        if name.is_empty() {
            return 0;
        }
        if let Some(&known) = self.numbers.get(name) {
            return known;
        }
        if self.names.len() >= CLASSES_MAX {
            return 0;
        }
        let number = self.names.len() as u16;
        self.names.push(name.into());
        self.numbers.insert(name.into(), number);
        number
    }

    /// The name of a number.
    pub(super) fn name(&self, number: u16) -> &str {
        self.names.get(usize::from(number)).map_or("", |name| name)
    }

    /// What holds for a class.
    pub(super) fn policy(&self, number: u16) -> ClassPolicy {
        self.policies.get(usize::from(number)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_numbers_until_there_are_too_many() {
        let policies = DevicePolicies::parse(["tv=kick_old"]).unwrap();
        let mut classes = Classes::new(&policies);
        assert_eq!(classes.policy(classes.numbers["tv"]), ClassPolicy::KickOld);
        let web = classes.number("web");
        assert_eq!((classes.number("web"), classes.name(web)), (web, "web"));
        assert_eq!(classes.policy(web), ClassPolicy::Allow);
        let last = (0..10_000).map(|n| classes.number(&format!("c{n}"))).max().unwrap();
        assert_eq!(usize::from(last), CLASSES_MAX - 1);
        assert_eq!((classes.number("one more"), classes.name(0)), (0, ""));
        assert_eq!(classes.number("tv"), 1, "what has a policy is always told apart");
    }
}
