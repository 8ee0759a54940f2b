//! The acts inside the virtual machine.

use super::canary::CANARY;
use super::stage::{EXPANDED, MIB, Stage};
use anyhow::ensure;
use std::time::{Duration, Instant};

const MOUNT: &str = "mkdir -p /mnt/a /mnt/b && mount /dev/vda1 /mnt/a && mount /dev/vdb /mnt/b";
const UMOUNT: &str = "umount /mnt/a && umount /mnt/b";
const SEEN_WITHIN: Duration = Duration::from_secs(60);

impl Stage {
    pub(super) fn make_file_systems(&mut self) -> anyhow::Result<String> {
        let guest = self.guest()?;
        guest.check("printf 'label: gpt\\n,\\n' | sfdisk -q /dev/vda")?;
        guest.check("mkfs.ext4 -q /dev/vda1 && mkfs.ext4 -q /dev/vdb")?;
        let partition = guest.check("cat /sys/block/vda/vda1/size")?;
        Ok(format!("vda1 of {partition} sectors, and the whole of vdb"))
    }

    pub(super) fn write_files(&mut self) -> anyhow::Result<String> {
        let guest = self.guest()?;
        guest.check(MOUNT)?;
        for disk in ["a", "b"] {
            guest.check(&format!(
                "cd /mnt/{disk} && for i in 1 2 3 4 5 6 7 8; do \
                 dd if=/dev/urandom of=file$i bs=1M count=4 2>/dev/null || exit 1; done && \
                 yes {CANARY} | head -c {MIB} >canary && sha256sum file* canary >sums && sync"
            ))?;
        }
        Ok("33 MiB on each disk".into())
    }

    pub(super) fn check_file_systems(&mut self) -> anyhow::Result<String> {
        let guest = self.guest()?;
        guest.check(UMOUNT)?;
        guest.check("e2fsck -fn /dev/vda1 && e2fsck -fn /dev/vdb")?;
        Ok("both clean".into())
    }

    pub(super) fn reboot_and_verify(&mut self) -> anyhow::Result<String> {
        let guest = self.guest()?;
        guest.reboot()?;
        guest.check(MOUNT)?;
        for disk in ["a", "b"] {
            let command = format!("cd /mnt/{disk} && sha256sum -c sums | grep -c OK");
            let good = guest.check(&command)?;
            ensure!(
                good == "9",
                "only {good} of 9 files of disk {disk} are good"
            );
        }
        Ok("18 of 18 files good".into())
    }

    /// Waits until the guest's kernel has taken over the new capacity of the second disk.
    pub(super) fn see_new_size(&mut self) -> anyhow::Result<()> {
        let guest = self.guest()?;
        guest.wait_for("[vdb] new size:", Instant::now() + SEEN_WITHIN)?;
        let sectors = guest.check("cat /sys/block/vdb/size")?;
        ensure!(
            sectors == (EXPANDED / 512).to_string(),
            "vdb has {sectors} sectors"
        );
        Ok(())
    }

    pub(super) fn use_new_space(&mut self) -> anyhow::Result<String> {
        let guest = self.guest()?;
        guest.check("resize2fs /dev/vdb")?;
        // More than the volume had before.
        guest.check("dd if=/dev/zero of=/mnt/b/large bs=1M count=300")?;
        guest.check("cd /mnt/b && sha256sum -c sums && cd / && sync")?;
        guest.check(UMOUNT)?;
        guest.check("e2fsck -fn /dev/vda1 && e2fsck -fn /dev/vdb")?;
        Ok("300 MiB written, both clean".into())
    }
}
