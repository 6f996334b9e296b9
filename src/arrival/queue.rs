//! What is fetched next: what a guest waits for, then what a boot needs, then the rest.

use std::collections::VecDeque;
use std::ops::Range;

/// Bytes between two chunks of a pack that are fetched along, since a request of their own costs more.
const GAP: u64 = 8 << 10;
/// Bytes of a request for what is waited for.
const ASKED: u64 = 128 << 10;
/// Bytes of a request for what will be needed: others wait for the link meanwhile.
const SOON: u64 = 512 << 10;
/// Bytes of a request when nothing waits.
const REST: u64 = 2 << 20;

/// Where an item is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of its pack.
    pub(super) pack: usize,
    /// Its first byte there.
    pub(super) at: u64,
    /// How many bytes it takes there.
    pub(super) packed: u64,
}

/// After so many chunks in a row a guest is taken to read on.
const BEFORE: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    UnderWay,
    Here,
}

/// How far a worker may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// What is waited for.
    Asked,
    /// And what a boot needs.
    Boot,
    /// And everything else.
    Rest,
}

/// One range of one pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetch {
    /// Number of the pack.
    pub(super) pack: usize,
    /// The bytes of it.
    pub(super) range: Range<u64>,
    /// The items in it that are missing.
    pub(super) items: Vec<u32>,
}

/// All items of a disk, in the order of the packs.
#[derive(Debug)]
pub(super) struct Queue {
    places: Vec<Place>,
    states: Vec<State>,
    /// Whether an item is one that a boot needs.
    of_boot: Vec<bool>,
    asked: VecDeque<u32>,
    /// Whether an item is in `asked`.
    in_asked: Vec<bool>,
    boot: Vec<u32>,
    boot_at: usize,
    rest_at: usize,
    left: usize,
    left_bytes: u64,
}

impl Queue {
    /// With none of the items here.
    #[must_use]
    pub(super) fn new(places: Vec<Place>) -> Self {
        let (left, left_bytes) = (places.len(), places.iter().map(|place| place.packed).sum());
        Queue {
            states: vec![State::Missing; left],
            of_boot: vec![false; left],
            in_asked: vec![false; left],
            places,
            asked: VecDeque::new(),
            boot: vec![],
            boot_at: 0,
            rest_at: 0,
            left,
            left_bytes,
        }
    }

    /// What a boot needs, in that order; numbers that are none are passed over.
    pub(super) fn boot(&mut self, items: Vec<u32>) {
        for item in &items {
            if let Some(of_boot) = self.of_boot.get_mut(*item as usize) {
                *of_boot = true;
            }
        }
        (self.boot, self.boot_at) = (items, 0);
    }

    fn is(&self, item: u32, state: State) -> bool {
        self.states.get(item as usize) == Some(&state)
    }

    /// Whether an item is here.
    #[must_use]
    pub(super) fn is_here(&self, item: u32) -> bool {
        self.is(item, State::Here)
    }

    /// Somebody waits for these.
    pub(super) fn ask(&mut self, items: &[u32]) {
        for item in items {
            let Some(in_asked) = self.in_asked.get_mut(*item as usize) else { continue };
            if !*in_asked && self.states.get(*item as usize) == Some(&State::Missing) {
                *in_asked = true;
                self.asked.push_back(*item);
            }
        }
    }

    /// An item is here.
    pub(super) fn arrived(&mut self, item: u32) {
        if let Some(state) = self.states.get_mut(item as usize)
            && *state != State::Here
        {
            *state = State::Here;
            self.left -= 1;
            let bytes = self.places.get(item as usize).map_or(0, |place| place.packed);
            self.left_bytes = self.left_bytes.saturating_sub(bytes);
        }
    }

    /// What was under way did not come: it is missing again.
    pub(super) fn lost(&mut self, items: &[u32]) {
        for item in items {
            if let Some(state) = self.states.get_mut(*item as usize)
                && *state == State::UnderWay
            {
                *state = State::Missing;
                (self.boot_at, self.rest_at) = (0, self.rest_at.min(*item as usize));
            }
        }
    }

    /// How many items are not here.
    #[must_use]
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Bytes of packs that are not here.
    #[must_use]
    pub(super) fn left_bytes(&self) -> u64 {
        self.left_bytes
    }

    /// What to fetch next, which is under way from then on.
    pub(super) fn next(&mut self, reach: Reach) -> Option<Fetch> {
        while let Some(item) = self.asked.pop_front() {
            if let Some(in_asked) = self.in_asked.get_mut(item as usize) {
                *in_asked = false;
            }
            if self.is(item, State::Missing) {
                // What is only close to it would move in vain, unless a boot needs it or the guest reads on and on.
                let on = self.reads_on(item);
                let wanted = |queue: &Queue, item: u32| {
                    on || is_set(&queue.in_asked, item) || is_set(&queue.of_boot, item)
                };
                return Some(self.from(item, ASKED, wanted));
            }
        }
        if reach < Reach::Boot {
            return None;
        }
        while let Some(item) = self.boot.get(self.boot_at).copied() {
            self.boot_at += 1;
            if self.is(item, State::Missing) {
                return Some(self.from(item, SOON, |queue, item| is_set(&queue.of_boot, item)));
            }
        }
        if reach < Reach::Rest {
            return None;
        }
        while self.rest_at < self.states.len() {
            let item = u32::try_from(self.rest_at).unwrap_or(u32::MAX);
            self.rest_at += 1;
            if self.is(item, State::Missing) {
                return Some(self.from(item, REST, |_, _| true));
            }
        }
        None
    }

    /// Whether those before `item` in its pack came since a guest read them, and no record says what it reads next.
    fn reads_on(&self, item: u32) -> bool {
        let pack = |item: u32| self.places.get(item as usize).map(|place| place.pack);
        self.boot_at >= self.boot.len()
            && item.checked_sub(BEFORE).is_some_and(|first| {
                (first..item)
                    .all(|before| pack(before) == pack(item) && !self.is(before, State::Missing))
            })
    }

    /// `item` with those behind it in its pack, as far as they are missing and `wanted`, and close to each other.
    fn from(&mut self, item: u32, most: u64, wanted: impl Fn(&Queue, u32) -> bool) -> Fetch {
        let place = |queue: &Queue, item: u32| queue.places.get(item as usize).copied();
        let Some(first) = place(self, item) else {
            return Fetch { pack: 0, range: 0..0, items: vec![] };
        };
        let mut fetch =
            Fetch { pack: first.pack, range: first.at..first.at + first.packed, items: vec![item] };
        let mut next = item.saturating_add(1);
        while let Some(behind) = place(self, next) {
            let end = behind.at + behind.packed;
            let close = behind.pack == first.pack
                && behind.at.saturating_sub(fetch.range.end) <= GAP
                && end.saturating_sub(first.at) <= most;
            if !close {
                break;
            }
            if self.is(next, State::Missing) && wanted(self, next) {
                fetch.range.end = end;
                fetch.items.push(next);
            }
            next += 1;
        }
        for item in &fetch.items {
            if let Some(state) = self.states.get_mut(*item as usize) {
                *state = State::UnderWay;
            }
        }
        fetch
    }
}

fn is_set(flags: &[bool], item: u32) -> bool {
    flags.get(item as usize).copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two packs with ten items each, of 10 KiB.
    fn queue() -> Queue {
        let place = |n: u64| Place {
            pack: usize::from(n >= 10),
            at: n % 10 * (10 << 10),
            packed: 10 << 10,
        };
        Queue::new((0..20).map(place).collect())
    }

    fn items(fetch: Option<Fetch>) -> Vec<u32> {
        fetch.map_or(vec![], |fetch| fetch.items)
    }

    #[test]
    fn what_is_waited_for_comes_first_then_what_a_boot_needs() {
        let mut queue = queue();
        queue.boot(vec![14, 15, 3, 99]);
        queue.ask(&[8, 12]);
        let first = queue.next(Reach::Asked).expect("waited for");
        assert_eq!((first.pack, first.range.clone()), (0, 80 << 10..90 << 10));
        assert_eq!(first.items, [8], "and not what nobody asked for");
        assert_eq!(items(queue.next(Reach::Rest)), [12]);
        assert_eq!(items(queue.next(Reach::Asked)), [0u32; 0]);
        assert_eq!(items(queue.next(Reach::Boot)), [14, 15]);
        assert_eq!(
            items(queue.next(Reach::Boot)),
            [3],
            "and what is not needed is not taken along"
        );
        assert_eq!(items(queue.next(Reach::Boot)), [0u32; 0]);
        assert_eq!(items(queue.next(Reach::Rest)), [0, 1, 2], "not what is under way");
        assert_eq!(items(queue.next(Reach::Rest)), [4, 5, 6, 7]);
        assert_eq!(items(queue.next(Reach::Rest)), [9]);
        assert_eq!(items(queue.next(Reach::Rest)), [10, 11]);
        assert_eq!(items(queue.next(Reach::Rest)), [13]);
        assert_eq!(items(queue.next(Reach::Rest)), [16, 17, 18, 19]);
        assert_eq!(queue.next(Reach::Rest), None);
    }

    #[test]
    fn what_is_close_moves_along_only_if_it_is_wanted_or_the_guest_reads_on() {
        let mut queue = queue();
        queue.ask(&[0]);
        assert_eq!(items(queue.next(Reach::Asked)), [0]);
        queue.ask(&[1, 2, 3]);
        assert_eq!(items(queue.next(Reach::Asked)), [1, 2, 3], "one request for one read");
        queue.ask(&[4]);
        assert_eq!(items(queue.next(Reach::Asked)), [4, 5, 6, 7, 8, 9], "it reads on");
        queue.boot(vec![15]);
        queue.ask(&[10, 12, 11, 13]);
        assert_eq!(items(queue.next(Reach::Asked)), [10, 11, 12, 13]);
        queue.ask(&[14]);
        assert_eq!(items(queue.next(Reach::Asked)), [14, 15], "what a boot needs, and no more");
        queue.ask(&[16]);
        assert_eq!(items(queue.next(Reach::Asked)), [16], "while a record is gone by");
        assert_eq!(queue.next(Reach::Boot), None);
        queue.ask(&[17]);
        assert_eq!(items(queue.next(Reach::Asked)), [17, 18, 19], "it has ended");
    }

    #[test]
    fn what_was_lost_is_fetched_again_and_what_is_here_is_not() {
        let mut queue = queue();
        queue.boot(vec![4]);
        let all = queue.next(Reach::Boot).expect("of the boot");
        queue.lost(&all.items);
        assert_eq!(queue.next(Reach::Boot), Some(all));
        queue.arrived(4);
        queue.arrived(4);
        assert_eq!((queue.left(), queue.left_bytes()), (19, 19 * (10 << 10)));
        queue.lost(&[4]);
        assert!(queue.is_here(4));
        queue.ask(&[4, 5, 5]);
        assert_eq!(items(queue.next(Reach::Asked)), [5]);
        for _ in 0..20 {
            while let Some(fetch) = queue.next(Reach::Rest) {
                fetch.items.iter().for_each(|item| queue.arrived(*item));
            }
            queue.lost(&[5, 6, 7, 8, 9]);
        }
        assert_eq!((queue.left(), queue.left_bytes()), (0, 0));
    }
}
