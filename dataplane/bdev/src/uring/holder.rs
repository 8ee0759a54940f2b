//! Who is in the way: best effort, for error messages only. An answer that cannot be found is left out.

use rustix::fs::{FileType, Stat, major, minor};
use std::fs;
use std::path::PathBuf;

/// Where the block device, or a part of it, is mounted.
pub(super) fn mount_point(stat: &Stat) -> Option<String> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
        return None;
    }
    let device = sysfs(&format!("{}:{}", major(stat.st_rdev), minor(stat.st_rdev)))?;
    // The first process sees mounts that a container does not.
    let tables = ["/proc/1/mountinfo", "/proc/self/mountinfo"];
    let tables = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok());
    tables
        .flat_map(|table| mounts(&table))
        .find_map(|(number, point)| {
            // A partition's folder lies below that of its disk.
            sysfs(&number)?.starts_with(&device).then_some(point)
        })
}

/// ` by ...` for the holder of the lock or the claim; empty if it cannot be found.
pub(super) fn describe(stat: &Stat) -> String {
    if let Some(pid) = lock_owner(stat) {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        return format!(" by process {pid} ({})", name.trim());
    }
    stacked(stat).map_or(String::new(), |device| format!(" by {device}"))
}

/// Whether a block device is mounted or part of another one: no process holds it, and none goes away.
pub(super) fn is_claimed(stat: &Stat) -> bool {
    mount_point(stat).is_some() || stacked(stat).is_some()
}

/// The device that a block device is part of, as in a RAID or a mapping.
fn stacked(stat: &Stat) -> Option<String> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
        return None;
    }
    let device = sysfs(&format!("{}:{}", major(stat.st_rdev), minor(stat.st_rdev)))?;
    let holder = fs::read_dir(device.join("holders")).ok()?.next()?.ok()?;
    Some(holder.file_name().to_string_lossy().into_owned())
}

/// Whether a living process holds the lock. A killed one holds it too, through requests the kernel still works on.
pub(super) fn lives(stat: &Stat) -> bool {
    let stat =
        lock_owner(stat).and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    stat.is_some_and(|stat| !is_exiting(&stat))
}

/// From proc_pid_stat(5): field 3 is the state, field 9 the flags; PF_EXITING is 4. The name in field 2 may hold anything.
fn is_exiting(stat: &str) -> bool {
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let mut fields = fields.split(' ');
    let state = fields.next().unwrap_or("X");
    let flags: u64 = fields
        .nth(5)
        .and_then(|flags| flags.parse().ok())
        .unwrap_or(0);
    matches!(state, "" | "Z" | "X") || flags & 4 != 0
}

fn sysfs(number: &str) -> Option<PathBuf> {
    fs::canonicalize(format!("/sys/dev/block/{number}")).ok()
}

/// Device number and mount point of each line (proc_pid_mountinfo(5), fields 3 and 5).
fn mounts(table: &str) -> Vec<(String, String)> {
    let fields = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        Some((fields.next()?.to_owned(), fields.nth(1)?.to_owned()))
    };
    table.lines().filter_map(fields).collect()
}

/// The process that holds a flock on the inode, from /proc/locks: `1: FLOCK ADVISORY WRITE pid dev:inode ...`.
fn lock_owner(stat: &Stat) -> Option<u32> {
    let (dev, inode) = (stat.st_dev, stat.st_ino);
    let wanted = format!("{:02x}:{:02x}:{inode}", major(dev), minor(dev));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, pid, file, ..] if file == wanted => pid.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::is_exiting;

    #[test]
    fn killed_process_is_not_taken_for_a_living_one() {
        let living = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0";
        let dying = "7 (holdfast) D 1 7 7 0 -1 4194564 100 0 0 0";
        let dead = "7 (holdfast) Z 1 7 7 0 -1 4194560 100 0 0 0";
        assert_eq!(
            [living, dying, dead, ""].map(is_exiting),
            [false, true, true, true]
        );
    }
}
