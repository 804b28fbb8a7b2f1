//! An order of rooms, read from one line such as `ids, limits < session < shard | bus < main`.
//!
//! `<`: what stands left is imported by what stands right, never the other way. `,`: may import
//! each other, but not in a circle. `|`: never import each other.

use std::collections::{BTreeMap, BTreeSet};

/// Where one room stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    level: usize,
    branch: usize,
}

/// The order of a crate's rooms.
#[derive(Debug)]
pub(crate) struct Order {
    places: BTreeMap<String, Place>,
}

impl Order {
    /// Reads an order.
    pub(crate) fn parse(line: &str) -> Self {
        let mut places = BTreeMap::new();
        for (level, group) in line.split('<').enumerate() {
            for (branch, rooms) in group.split('|').enumerate() {
                for room in rooms.split(',') {
                    let again = places.insert(room.trim().to_owned(), Place { level, branch });
                    assert!(again.is_none(), "{room} stands twice in {line:?}");
                }
            }
        }
        Self { places }
    }

    /// Whether a room has a place.
    pub(crate) fn knows(&self, room: &str) -> bool {
        self.places.contains_key(room)
    }

    /// Why `from` must not import `to`, if it must not.
    pub(crate) fn forbids(&self, from: &str, to: &str) -> Option<&'static str> {
        let (from, to) = (self.places.get(from)?, self.places.get(to)?);
        if to.level > from.level {
            return Some("stands above it");
        }
        let siblings = to.level == from.level && to.branch != from.branch;
        siblings.then_some("is its sibling")
    }
}

/// A circle among these imports, if there is one, as `a -> b -> a`.
pub(crate) fn circle(edges: &BTreeSet<(String, String)>) -> Option<String> {
    let starts: BTreeSet<&str> = edges.iter().map(|(from, _)| from.as_str()).collect();
    starts.into_iter().find_map(|start| {
        let mut seen = BTreeSet::new();
        let mut road = vec![start];
        reach(edges, start, start, &mut seen, &mut road).then(|| road.join(" -> "))
    })
}

fn reach<'a>(
    edges: &'a BTreeSet<(String, String)>,
    here: &str,
    goal: &str,
    seen: &mut BTreeSet<&'a str>,
    road: &mut Vec<&'a str>,
) -> bool {
    for (_, next) in edges.iter().filter(|(from, _)| from == here) {
        road.push(next);
        if next == goal || seen.insert(next) && reach(edges, next, goal, seen, road) {
            return true;
        }
        road.pop();
    }
    false
}

#[test]
fn an_order_is_read_as_written() {
    let order = Order::parse("ids, limits < session < shard | bus < main");
    for (from, to) in [("session", "ids"), ("ids", "limits"), ("main", "bus"), ("bus", "bus")] {
        assert_eq!(order.forbids(from, to), None, "{from} -> {to}");
    }
    assert_eq!(order.forbids("ids", "session"), Some("stands above it"));
    assert_eq!(order.forbids("shard", "bus"), Some("is its sibling"));
    assert!(order.knows("bus") && !order.knows("net"));
}

#[test]
fn circles_are_found() {
    let edges = |list: &[(&str, &str)]| {
        list.iter().map(|(from, to)| (from.to_string(), to.to_string())).collect()
    };
    assert_eq!(circle(&edges(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    let found = circle(&edges(&[("z", "a"), ("a", "b"), ("b", "c"), ("c", "a")]));
    assert_eq!(found.as_deref(), Some("a -> b -> c -> a"));
}
