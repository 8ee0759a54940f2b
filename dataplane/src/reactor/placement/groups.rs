//! The control groups around this process: how much processor time they leave it, and how long they have stopped it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The group of this process and those around it, as far as they can be seen; of both versions of control groups.
#[derive(Clone, Debug)]
pub(crate) struct Groups {
    folders: Vec<PathBuf>,
}

impl Groups {
    /// What the kernel says. What it does not tell is no limit.
    pub(crate) fn of_this_process() -> Groups {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Groups::found(&groups, Path::new("/sys/fs/cgroup"))
    }

    /// `groups` is the /proc/PID/cgroup of a process, `root` the folder of the hierarchies.
    fn found(groups: &str, root: &Path) -> Groups {
        let folders = groups.lines().flat_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next(), fields.next());
            let roots = match controllers.unwrap_or("-") {
                "" => vec![root.to_owned(), root.join("unified")],
                list if list.split(',').any(|name| name == "cpu") => {
                    vec![root.join("cpu"), root.join(list)]
                }
                _ => Vec::new(),
            };
            around(&roots, path.unwrap_or("/"))
        });
        Groups {
            folders: folders.collect(),
        }
    }

    /// The least processor time that one of them leaves, in processors; none without a quota.
    pub(crate) fn quota(&self) -> Option<f64> {
        let groups = self.folders.iter();
        let quotas = groups.filter_map(|group| new_quota(group).or_else(|| old_quota(group)));
        quotas.min_by(f64::total_cmp)
    }

    /// How long processors stood still for the one that was stopped most, since it was made; none if the kernel does not
    /// tell. Processors that are stopped at the same time count each.
    pub(crate) fn throttled(&self) -> Option<Duration> {
        let groups = self.folders.iter();
        groups.filter_map(|group| throttled(group)).max()
    }
}

/// A group and those around it. Inside a container its path may lead nowhere: the hierarchy then begins at it.
fn around(roots: &[PathBuf], path: &str) -> Vec<PathBuf> {
    let inside = Path::new(path.trim_start_matches('/'));
    let groups = roots
        .iter()
        .flat_map(|root| inside.ancestors().map(|group| root.join(group)));
    groups.collect()
}

/// Version 2: `cpu.max` holds quota and period in microseconds, or `max` and the period.
fn new_quota(group: &Path) -> Option<f64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// Version 1: a quota of -1 is none.
fn old_quota(group: &Path) -> Option<f64> {
    let number = |name: &str| {
        let text = fs::read_to_string(group.join(name)).ok()?;
        text.trim().parse::<f64>().ok()
    };
    let (quota, period) = (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?);
    (quota > 0.0).then_some(quota / period)
}

/// Microseconds in version 2, nanoseconds under another name in version 1.
fn throttled(group: &Path) -> Option<Duration> {
    let text = fs::read_to_string(group.join("cpu.stat")).ok()?;
    text.lines().find_map(|line| match line.split_once(' ')? {
        ("throttled_usec", time) => time.parse().ok().map(Duration::from_micros),
        ("throttled_time", time) => time.parse().ok().map(Duration::from_nanos),
        _ => None,
    })
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

    fn quota(groups: &str, root: &Path) -> Option<f64> {
        Groups::found(groups, root).quota()
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

    const FIRST_VERSION: &str = "9:name=systemd:/\n4:memory:/x\n2:cpu,cpuacct:/a/b\n0::/\n";

    #[test]
    fn quota_of_the_first_version_is_read_and_minus_one_is_none() {
        let root = tree(&[
            ("cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n"),
            ("cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
            ("cpu,cpuacct/a/b/cpu.cfs_quota_us", "250000\n"),
            ("cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(quota(FIRST_VERSION, root.path()), Some(2.5));
        let above = FIRST_VERSION.replace("/a/b", "/a");
        assert_eq!(quota(&above, root.path()), None);
        assert_eq!(quota("rubbish\n\n7", root.path()), None);
    }

    #[test]
    fn time_stopped_is_that_of_the_group_stopped_most_in_either_version() {
        let root = tree(&[
            (
                "pods/cpu.stat",
                "usage_usec 7000000\nnr_periods 9\nnr_throttled 5\nthrottled_usec 2500000\nnr_bursts 0\n",
            ),
            ("pods/one/cpu.stat", "nr_throttled 1\nthrottled_usec 40\n"),
            ("cpu.stat", "usage_usec 8000000\n"),
        ]);
        let found = Groups::found("0::/pods/one\n", root.path());
        assert_eq!(found.throttled(), Some(Duration::from_millis(2500)));
        let at_the_top = Groups::found("0::/\n", root.path());
        assert_eq!(at_the_top.throttled(), None, "nobody stops the top");

        let old = "nr_periods 9\nnr_throttled 5\nthrottled_time 1500000000\n";
        let root = tree(&[("cpu,cpuacct/a/b/cpu.stat", old)]);
        let found = Groups::found(FIRST_VERSION, root.path());
        assert_eq!(found.throttled(), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn quota_raised_meanwhile_is_seen_without_a_restart() {
        let root = tree(&[("pod/cpu.max", "100000 100000\n")]);
        let found = Groups::found("0::/pod\n", root.path());
        assert_eq!(found.quota(), Some(1.0));
        fs::write(root.path().join("pod/cpu.max"), "max 100000\n").unwrap();
        assert_eq!(found.quota(), None);
    }
}
