//! Targets that a hostile, clumsy or repeating caller names, against real mounts. Every test has a mount namespace of its own, so
//! nothing stays behind. They need root, as the driver does.

use super::*;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;
use std::fs;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

struct Fixture {
    dir: TempDir,
    targets: Targets,
    source: OwnedFd,
}

impl Fixture {
    /// A fresh directory `targets`, a source that holds one file, and mounts that no other thread sees.
    fn new() -> Fixture {
        // Deprecated for what it does with other flags; a mount namespace concerns no memory and no descriptor.
        #[allow(deprecated)]
        rustix::thread::unshare(UnshareFlags::NEWNS).expect("run as root: mounts are made");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        let dir = TempDir::new().unwrap();
        for name in ["targets", "source"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("source/v.sock"), b"").unwrap();
        Fixture {
            targets: Targets::below(dir.path()).unwrap(),
            source: open_dir(&dir.path().join("source")),
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("targets").join(name)
    }

    fn target(&self, name: &str) -> TargetPath {
        TargetPath::parse(self.path(name).to_str().unwrap()).unwrap()
    }

    fn publish(&self, name: &str) -> Result<(), PathError> {
        self.targets
            .publish(self.source.as_fd(), &self.target(name))
    }

    fn retract(&self, name: &str, recorded: bool) -> Result<(), PathError> {
        let source = Some(self.source.as_fd());
        self.targets.retract(source, &self.target(name), recorded)
    }

    fn shows(&self, name: &str) -> bool {
        let target = self.target(name);
        self.targets.shows(self.source.as_fd(), &target).unwrap()
    }

    fn mounts(&self) -> usize {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let below = self.dir.path().to_str().unwrap();
        table.lines().filter(|line| line.contains(below)).count()
    }
}

fn open_dir(path: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).unwrap()
}

#[test]
fn text_that_is_no_target_is_refused_with_the_rule() {
    let long_name = format!("/a/{}", "n".repeat(256));
    let long_path = "/abc".repeat(1024);
    let cases = [
        ("", "absolute"),
        ("relative/path", "absolute"),
        ("/", "root directory"),
        ("//", "root directory"),
        ("/a/../b", "'..'"),
        ("/a/..", "'..'"),
        ("/a\0b", "NUL"),
        (long_name.as_str(), "255"),
        (long_path.as_str(), "4095"),
    ];
    for (text, rule) in cases {
        let error = TargetPath::parse(text).unwrap_err();
        assert!(matches!(error, PathError::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(rule), "{error}");
        assert!(error.to_string().len() < 300, "a message, not a dump");
    }
}

#[test]
fn text_is_normalised_so_that_one_target_has_one_name() {
    for text in ["/a/b", "/a//b", "/a/./b", "/a/b/", "//a/b"] {
        assert_eq!(TargetPath::parse(text).unwrap().text(), "/a/b", "{text}");
    }
}

#[test]
fn published_target_shows_the_directory_and_is_writable() {
    let fixture = Fixture::new();
    fixture.publish("t").unwrap();
    assert!(fixture.shows("t"));
    assert!(fixture.path("t").join("v.sock").exists());
    fs::write(fixture.path("t").join("new"), b"x").unwrap();
    assert!(fixture.dir.path().join("source/new").exists());
}

#[test]
fn socket_made_anew_appears_at_the_target() {
    let fixture = Fixture::new();
    fixture.publish("t").unwrap();
    fs::remove_file(fixture.dir.path().join("source/v.sock")).unwrap();
    fs::write(fixture.dir.path().join("source/v.sock"), b"second").unwrap();
    let seen = fs::read(fixture.path("t").join("v.sock")).unwrap();
    assert_eq!(seen, b"second");
}

#[test]
fn publish_and_retract_repeated_change_nothing_more() {
    let fixture = Fixture::new();
    for _ in 0..3 {
        fixture.publish("t").unwrap();
        assert_eq!(fixture.mounts(), 1);
    }
    for _ in 0..3 {
        fixture.retract("t", true).unwrap();
        assert_eq!(fixture.mounts(), 0);
        assert!(!fixture.path("t").exists());
    }
}

#[test]
fn publish_completes_what_was_left_after_the_directory_was_made() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("t")).unwrap();
    fixture.publish("t").unwrap();
    assert!(fixture.shows("t"));
}

#[test]
fn retract_completes_what_was_left_after_the_unmount() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("t")).unwrap();
    fixture.retract("t", true).unwrap();
    assert!(!fixture.path("t").exists());
}

#[test]
fn target_in_use_is_retracted_all_the_same() {
    let fixture = Fixture::new();
    fixture.publish("t").unwrap();
    let used = fs::File::open(fixture.path("t").join("v.sock")).unwrap();
    fixture.retract("t", true).unwrap();
    assert!(!fixture.path("t").exists());
    drop(used);
}

#[test]
fn symbolic_link_at_the_target_is_not_followed() {
    let fixture = Fixture::new();
    let victim = fixture.dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    symlink(&victim, fixture.path("t")).unwrap();
    for result in [fixture.publish("t"), fixture.retract("t", true)] {
        let error = result.unwrap_err();
        assert!(matches!(error, PathError::Invalid { .. }), "{error}");
        assert!(error.to_string().contains("not followed"), "{error}");
    }
    assert_eq!(fixture.mounts(), 0);
    assert!(victim.exists());
}

#[test]
fn symbolic_link_on_the_way_is_not_followed() {
    let fixture = Fixture::new();
    let victim = fixture.dir.path().join("victim");
    fs::create_dir_all(victim.join("t")).unwrap();
    symlink(&victim, fixture.path("link")).unwrap();
    for result in [fixture.publish("link/t"), fixture.retract("link/t", true)] {
        let error = result.unwrap_err();
        assert!(error.to_string().contains("not followed"), "{error}");
    }
    assert_eq!(fixture.mounts(), 0);
    assert!(victim.join("t").exists());
}

#[test]
fn target_outside_the_root_is_refused() {
    let fixture = Fixture::new();
    let outside = TempDir::new().unwrap();
    let target = TargetPath::parse(outside.path().join("t").to_str().unwrap()).unwrap();
    let error = fixture
        .targets
        .publish(fixture.source.as_fd(), &target)
        .unwrap_err();
    assert!(error.to_string().contains("does not lie below"), "{error}");
    assert!(!outside.path().join("t").exists());
}

#[test]
fn root_that_is_a_link_itself_is_the_operators_choice() {
    let fixture = Fixture::new();
    let alias = fixture.dir.path().join("alias");
    symlink(fixture.dir.path().join("targets"), &alias).unwrap();
    let targets = Targets::below(&alias).unwrap();
    let target = TargetPath::parse(alias.join("t").to_str().unwrap()).unwrap();
    targets.publish(fixture.source.as_fd(), &target).unwrap();
    assert!(fixture.shows("t"));
}

#[test]
fn file_or_files_at_the_target_are_kept() {
    let fixture = Fixture::new();
    fs::write(fixture.path("file"), b"precious").unwrap();
    fs::create_dir(fixture.path("dir")).unwrap();
    fs::write(fixture.path("dir").join("file"), b"precious").unwrap();
    for name in ["file", "dir"] {
        fixture.publish(name).unwrap_err();
        fixture.retract(name, true).unwrap_err();
    }
    assert_eq!(fixture.mounts(), 0);
    assert_eq!(fs::read(fixture.path("file")).unwrap(), b"precious");
    assert_eq!(fs::read(fixture.path("dir/file")).unwrap(), b"precious");
}

#[test]
fn mount_of_somebody_else_is_neither_covered_nor_removed() {
    let fixture = Fixture::new();
    let other = fixture.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::create_dir(fixture.path("t")).unwrap();
    mount_bind(&other, fixture.path("t")).unwrap();
    let occupied = fixture.publish("t").unwrap_err();
    assert!(matches!(occupied, PathError::Occupied { .. }), "{occupied}");
    let occupied = fixture.retract("t", true).unwrap_err();
    assert!(matches!(occupied, PathError::Occupied { .. }), "{occupied}");
    fixture.retract("t", false).unwrap();
    assert_eq!(fixture.mounts(), 1);
}

#[test]
fn target_that_is_not_ours_stays_when_it_was_never_recorded() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("t")).unwrap();
    fixture.retract("t", false).unwrap();
    assert!(fixture.path("t").exists());
}

#[test]
fn mount_that_was_never_recorded_is_ours_by_what_it_shows() {
    let fixture = Fixture::new();
    fixture.publish("t").unwrap();
    fixture.retract("t", false).unwrap();
    assert_eq!(fixture.mounts(), 0);
    assert!(!fixture.path("t").exists());
}

#[test]
fn mounts_stacked_on_a_target_are_all_taken_off() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("t")).unwrap();
    for _ in 0..3 {
        mount_bind(fixture.dir.path().join("source"), fixture.path("t")).unwrap();
    }
    fixture.retract("t", true).unwrap();
    assert_eq!(fixture.mounts(), 0);
}

#[test]
fn missing_parent_is_an_error_to_publish_and_nothing_to_retract() {
    let fixture = Fixture::new();
    let error = fixture.publish("no/such").unwrap_err();
    assert!(matches!(error, PathError::Io { .. }), "{error}");
    fixture.retract("no/such", true).unwrap();
    assert!(!fixture.shows("no/such"));
}
