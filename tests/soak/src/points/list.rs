//! The places, in the order in which a request, a session and a volume come by them. A place in the product that is not
//! here fails a test, and so does one here that is not in the product.

/// A place, and how a server is brought there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// As in the product's `crash_point!`.
    pub name: &'static str,
    /// What has to be done for it to be met.
    pub way: Way,
}

/// What has to be done for a place to be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Load, and all that machines and Kubernetes do meanwhile.
    Load,
    /// The same, after the predecessor died at another place.
    After(&'static str),
    /// A machine that was never there before.
    NewGuest,
}

const fn met(name: &'static str) -> Point {
    Point {
        name,
        way: Way::Load,
    }
}

const fn first(name: &'static str) -> Point {
    Point {
        name,
        way: Way::NewGuest,
    }
}

/// All of them.
pub const POINTS: &[Point] = &[
    // Taking, doing and answering a request.
    met("pop.taken"),
    met("pop.marked"),
    met("mark.counter"),
    met("mark.flag"),
    met("dispatch.before"),
    met("dispatch.after"),
    met("complete.taken"),
    met("answer.finished"),
    met("push.used-element"),
    met("stage.next"),
    met("stage.head"),
    met("publish.staged"),
    met("publish.used-idx"),
    met("settle.flag"),
    met("settle.flags"),
    met("settle.used-idx"),
    met("interrupt.before"),
    met("interrupt.after"),
    // Taking over from a predecessor.
    met("recover.planned"),
    Point {
        name: "recover.flag",
        way: Way::After("publish.used-idx:40"),
    },
    met("recover.flags"),
    met("recover.resumed"),
    met("replay.next"),
    // The first attach of a machine.
    first("inflight.unsized"),
    first("inflight.made"),
    first("format.flags"),
    first("format.header"),
    first("format.version"),
    // A session and its rings.
    met("session.accepted"),
    met("session.over"),
    met("inflight.mapped"),
    met("start.handed-over"),
    met("start.recovered"),
    met("start.watched"),
    met("stop.asked"),
    met("stop.drained"),
    met("stop.taken-back"),
    met("memory.spread"),
    met("memory.changed"),
    met("swap-view.asked"),
    met("swap-view.resolved"),
    met("swap-view.done"),
    // Opening a drive and listening.
    met("device.opened"),
    met("device.locked"),
    met("pool.opened"),
    met("export.opened"),
    met("listen.bound"),
    met("listen.named"),
    met("export.listening"),
    met("unexport.ended"),
    // Changing what is on a drive.
    met("table.encoded"),
    met("table.unflushed"),
    met("table.first-copy"),
    met("table.both-copies"),
    met("allocate.durable"),
    met("grow.durable"),
    met("grow.extents"),
    met("release.durable"),
    met("erase.chosen"),
    met("erase.zeroed"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    fn named_in(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("crash") {
                named_in(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let names = text.split("crash_point!(\"").skip(1);
                found.extend(names.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }

    #[test]
    fn places_in_the_product_are_exactly_these() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut found = BTreeSet::new();
        // The agent's own places need an API server: tests/cluster tries them.
        for room in ["dataplane", "controller", "store", "cli"] {
            named_in(&root.join(room), &mut found);
        }
        let listed: BTreeSet<String> = POINTS.iter().map(|p| p.name.to_owned()).collect();
        assert_eq!(found, listed);
        assert_eq!(listed.len(), POINTS.len(), "a place is listed twice");
    }
}
