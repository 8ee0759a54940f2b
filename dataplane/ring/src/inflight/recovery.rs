//! What a successor makes of a region: which marks to clear, which requests to do again and in which order, and where to
//! go on. Reads every word once, believes none, and changes nothing before all of it has been understood.

use super::queue::Header;
use super::{InflightError, InflightQueue, InflightSlot};
use holdfast_crash::crash_point;

/// What a recovered queue starts with.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) queue: InflightQueue,
    /// Heads to be done again, oldest first.
    pub(crate) resubmit: Vec<u16>,
}

impl InflightQueue {
    /// Takes over the part of a queue whose ring has `size` descriptors and was published up to `used_idx`.
    pub(crate) fn recover(
        slot: InflightSlot,
        size: u16,
        used_idx: u16,
    ) -> Result<Recovered, InflightError> {
        let mut queue = InflightQueue::open(slot, size)?;
        let header = queue.header();
        if header.version == 0 {
            queue.format(used_idx);
            return Ok(Recovered {
                queue,
                resubmit: Vec::new(),
            });
        }
        let published = published(&queue, header, used_idx)?;
        let marked = marked(&queue, &published)?;
        crash_point!("recover.planned");
        for head in &published {
            queue.unmark(*head);
            crash_point!("recover.flag");
        }
        crash_point!("recover.flags");
        let counter = marked.iter().map(|(count, _)| count.wrapping_add(1)).max();
        queue.resume(counter.unwrap_or(0), header.last_batch_head, used_idx);
        crash_point!("recover.resumed");
        Ok(Recovered {
            queue,
            resubmit: marked.into_iter().map(|(_, head)| head).collect(),
        })
    }
}

/// Heads of the last batch that the guest was shown but whose marks may still stand.
fn published(
    queue: &InflightQueue,
    header: Header,
    used_idx: u16,
) -> Result<Vec<u16>, InflightError> {
    if header.version != 1 {
        return Err(InflightError::Version(header.version));
    }
    if header.desc_num != queue.part_size() {
        return Err(InflightError::DescNum {
            found: header.desc_num,
            expected: queue.part_size(),
        });
    }
    let count = used_idx.wrapping_sub(header.used_idx);
    if count > queue.size() {
        return Err(InflightError::UsedIndex {
            recorded: header.used_idx,
            used: used_idx,
            size: queue.size(),
        });
    }
    let mut heads: Vec<u16> = Vec::with_capacity(count.into());
    let mut head = header.last_batch_head;
    // Bound: `count` is at most the size of the ring.
    for _ in 0..count {
        if head >= queue.size() || heads.contains(&head) {
            return Err(InflightError::Batch { head });
        }
        heads.push(head);
        head = queue.next(head);
    }
    Ok(heads)
}

/// Heads that are marked and were not published, by the counters they were taken under.
fn marked(queue: &InflightQueue, published: &[u16]) -> Result<Vec<(u64, u16)>, InflightError> {
    let mut marked = Vec::new();
    for head in 0..queue.part_size() {
        match queue.flag(head) {
            0 => {}
            1 if head < queue.size() => {
                if !published.contains(&head) {
                    marked.push((queue.count(head), head));
                }
            }
            flag => return Err(InflightError::Flag { head, flag }),
        }
    }
    marked.sort_unstable();
    Ok(marked)
}
