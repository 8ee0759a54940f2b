//! Where reactors run, and how many: what of the machine this process may use, which processors share a core, and how much
//! time a quota leaves. A reactor that looks at rings takes a whole core, and one that a quota stops keeps guests waiting for
//! tens of milliseconds, so both are found out at the start and told.

use rustix::thread::{CpuSet, sched_getaffinity};
use std::fs;
use std::path::Path;

/// What of the machine this process may use.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Share {
    /// Cores of which it may use at least one processor.
    cores: usize,
    /// Processor time that control groups leave, in processors; none without a quota.
    quota: Option<f64>,
}

impl Share {
    /// What the kernel says. What it does not tell is no limit.
    pub(super) fn found() -> Share {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Share {
            cores: cores(&allowed(), siblings),
            quota: quota(&groups, Path::new("/sys/fs/cgroup")),
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

/// The least processor time, in processors, that the control groups of a process leave it. `groups` is its
/// /proc/PID/cgroup, `root` the folder of the hierarchies.
fn quota(groups: &str, root: &Path) -> Option<f64> {
    let quotas = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next(), fields.next());
        let (controllers, path) = (controllers.unwrap_or("-"), path.unwrap_or("/"));
        match controllers {
            "" => least(&[root.to_owned(), root.join("unified")], path, v2),
            list if list.split(',').any(|name| name == "cpu") => {
                least(&[root.join("cpu"), root.join(list)], path, v1)
            }
            _ => None,
        }
    });
    quotas.min_by(f64::total_cmp)
}

/// The least of a group and those around it. Inside a container its path may lead nowhere: the hierarchy then begins at it.
fn least(
    roots: &[std::path::PathBuf],
    path: &str,
    read: impl Fn(&Path) -> Option<f64>,
) -> Option<f64> {
    let inside = Path::new(path.trim_start_matches('/'));
    let groups = roots
        .iter()
        .flat_map(|root| inside.ancestors().map(|group| root.join(group)));
    groups
        .filter_map(|group| read(&group))
        .min_by(f64::total_cmp)
}

/// `cpu.max` holds quota and period in microseconds, or `max` and the period.
fn v2(group: &Path) -> Option<f64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// A quota of -1 is none.
fn v1(group: &Path) -> Option<f64> {
    let number = |name: &str| {
        let text = fs::read_to_string(group.join(name)).ok()?;
        text.trim().parse::<f64>().ok()
    };
    let (quota, period) = (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?);
    (quota > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hierarchy with these files.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn least_quota_of_all_groups_around_the_process_counts() {
        let root = tree(&[
            ("pods/cpu.max", "150000 100000\n"),
            ("pods/one/cpu.max", "max 100000\n"),
        ]);
        assert_eq!(quota("0::/pods/one\n", root.path()), Some(1.5));
        let root = tree(&[("cpu.max", "50000 100000\n")]);
        let outside = "0::/kubepods/not/seen/from/inside\n";
        assert_eq!(quota(outside, root.path()), Some(0.5));
    }

    #[test]
    fn quota_of_the_first_version_is_read_and_minus_one_is_none() {
        let root = tree(&[
            ("cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n"),
            ("cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
            ("cpu,cpuacct/a/b/cpu.cfs_quota_us", "250000\n"),
            ("cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n"),
        ]);
        let groups = |path| format!("9:name=systemd:/\n4:memory:/x\n2:cpu,cpuacct:{path}\n0::/\n");
        assert_eq!(quota(&groups("/a/b"), root.path()), Some(2.5));
        assert_eq!(quota(&groups("/a"), root.path()), None);
        assert_eq!(quota("rubbish\n\n7", root.path()), None);
    }

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
        let (share, allowed) = (Share::found(), allowed().len());
        assert!(
            (1..=allowed).contains(&share.cores),
            "{share:?} of {allowed}"
        );
        assert!(share.quota.is_none_or(|quota| quota > 0.0), "{share:?}");
    }
}
