//! Where reactors run, and how many: what of the machine this process may use, which processors share a core, and how much
//! time a quota leaves. A reactor that looks at rings takes a whole core, and one that a quota stops keeps guests waiting for
//! tens of milliseconds, so both are found out at the start and told.

mod groups;

use crate::Processors;
pub(super) use groups::Groups;
use rustix::thread::{CpuSet, sched_getaffinity};
use std::fs;

/// What of the machine this process may use.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Share {
    /// Cores of which it may use at least one processor.
    cores: usize,
    /// Processor time that control groups leave, in processors; none without a quota.
    quota: Option<f64>,
}

impl Share {
    /// What the kernel says.
    pub(super) fn found(groups: &Groups) -> Share {
        Share {
            cores: cores(&allowed(), siblings),
            quota: groups.quota(),
        }
    }

    /// How many reactors run where no processors are named: one for every two cores, for guests need some as well, and no
    /// more than there is time for.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates.
    pub(super) fn reactors(&self) -> usize {
        let time = self.quota.map_or(usize::MAX, |quota| quota as usize);
        (self.cores / 2).min(time).max(1)
    }

    /// Says how many reactors run, on the processors `named` if there are any, and what is wrong with that.
    pub(super) fn tell(&self, reactors: usize, named: &[usize]) {
        let Share { cores: of, quota } = self;
        tracing::info!(reactors, cpus = ?named, cores = of, ?quota, "Reactors run");
        if self.is_short(reactors) {
            tracing::warn!(
                ?quota,
                reactors,
                "The quota of this control group stops reactors while guests wait: raise its CPU limit, or remove it"
            );
        }
        if cores(named, siblings) < named.len() {
            tracing::warn!(
                cpus = ?named,
                "Two reactors share a core, which serves little more than one would: name one processor of each core"
            );
        }
    }

    #[allow(clippy::cast_precision_loss)] // There are not that many processors.
    fn is_short(&self, reactors: usize) -> bool {
        self.quota.is_some_and(|quota| quota < reactors as f64)
    }
}

/// What processors there are for so many reactors, as it is now.
pub(super) fn processors(reactors: usize, groups: &Groups) -> Processors {
    Processors {
        reactors,
        allowed: allowed().len(),
        quota: groups.quota(),
        throttled: groups.throttled(),
    }
}

/// The processors this thread, and what it starts, may run on.
fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect()
}

/// The processors of a core, as the kernel writes them; empty if it does not tell.
fn siblings(cpu: usize) -> String {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    fs::read_to_string(path).unwrap_or_default()
}

/// On how many cores these processors are.
fn cores(cpus: &[usize], siblings: impl Fn(usize) -> String) -> usize {
    let core = |cpu: &usize| match siblings(*cpu) {
        list if list.is_empty() => cpu.to_string(),
        list => list,
    };
    let distinct: std::collections::BTreeSet<String> = cpus.iter().map(core).collect();
    distinct.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_one_core_count_once() {
        let siblings = |cpu: usize| match cpu {
            0 | 4 => "0,4\n".to_owned(),
            1 | 5 => "1,5\n".to_owned(),
            _ => String::new(),
        };
        assert_eq!(cores(&[0, 1, 4, 5], siblings), 2);
        assert_eq!(cores(&[4, 7, 8], siblings), 3, "what is not told is a core");
    }

    #[test]
    fn reactors_take_half_of_the_cores_and_no_more_than_the_quota() {
        let share = |cores, quota| Share { cores, quota };
        let reactors = |cores, quota| share(cores, quota).reactors();
        assert_eq!(
            [1, 2, 3, 8].map(|cores| reactors(cores, None)),
            [1, 1, 1, 4]
        );
        assert_eq!(reactors(8, Some(2.5)), 2);
        assert_eq!(reactors(8, Some(0.5)), 1);
        assert!(share(8, Some(0.5)).is_short(1) && !share(8, Some(1.0)).is_short(1));
    }

    #[test]
    fn share_of_this_process_is_on_the_processors_it_may_use() {
        let groups = Groups::of_this_process();
        let (share, allowed) = (Share::found(&groups), allowed().len());
        assert!(
            (1..=allowed).contains(&share.cores),
            "{share:?} of {allowed}"
        );
        assert!(share.quota.is_none_or(|quota| quota > 0.0), "{share:?}");
    }
}
