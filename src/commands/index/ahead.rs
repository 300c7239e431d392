//! [`Ahead`]: an input that another thread reads before its items are needed.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

/// Most items of a group, and about its most bytes. Items are handed over in groups, since a handover takes as long as reading
/// several short ones.
const GROUP: usize = 1024;
const GROUP_BYTES: usize = 1 << 18;
/// Groups that wait.
const GROUPS: usize = 4;

/// Iterator over items that a thread reads. A panic of that thread is one of [`next`](Iterator::next).
pub(super) struct Ahead<T> {
    groups: Receiver<Vec<T>>,
    group: std::vec::IntoIter<T>,
    /// none after its end
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Ahead<T> {
    /// Starts to read `items`. `bytes` returns about the memory of an item.
    ///
    /// # Errors
    /// No thread to be had.
    pub(super) fn of(
        items: impl Iterator<Item = T> + Send + 'static,
        bytes: impl Fn(&T) -> usize + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, groups) = sync_channel(GROUPS);
        let thread = Builder::new().name("read".into()).spawn(move || read(items, bytes, &sender))?;
        Ok(Self { groups, group: Vec::new().into_iter(), thread: Some(thread) })
    }
}

/// Reads all items, or until nobody takes them any more.
fn read<T>(mut items: impl Iterator<Item = T>, bytes: impl Fn(&T) -> usize, sender: &SyncSender<Vec<T>>) {
    loop {
        let (mut group, mut size) = (Vec::new(), 0);
        while group.len() < GROUP && size < GROUP_BYTES {
            let Some(item) = items.next() else { break };
            size += bytes(&item);
            group.push(item);
        }
        if group.is_empty() || sender.send(group).is_err() {
            return;
        }
    }
}

impl<T> Iterator for Ahead<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            if let Some(item) = self.group.next() {
                return Some(item);
            }
            match self.groups.recv() {
                Ok(group) => self.group = group.into_iter(),
                Err(_) => {
                    let thread = self.thread.take()?;
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_order_and_large_ones_go_alone() {
        for bytes in [1, GROUP_BYTES] {
            let ahead = Ahead::of(0..5000, move |_| bytes).unwrap();
            assert!(ahead.eq(0..5000), "{bytes}");
        }
        assert_eq!(Ahead::of(std::iter::empty::<u8>(), |_| 1).unwrap().next(), None);
    }

    #[test]
    fn an_input_without_end_is_read_no_further_than_needed() {
        let (sender, ended) = sync_channel(1);
        let guard = OnDrop(sender);
        let items = (0_u64..).inspect(move |_| {
            let _held_by_the_reader = &guard;
        });
        let mut ahead = Ahead::of(items, |_| 1).unwrap();
        assert_eq!(ahead.by_ref().take(3000).last(), Some(2999));
        drop(ahead);
        ended.recv().unwrap();
    }

    /// Sends when it is dropped.
    struct OnDrop(SyncSender<()>);

    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }

    #[test]
    #[should_panic(expected = "the reader's")]
    fn a_panic_is_not_the_end_of_the_input() {
        let items = (0..10).inspect(|at| assert!(*at < 5, "the reader's"));
        Ahead::of(items, |_| 1).unwrap().for_each(drop);
    }
}
