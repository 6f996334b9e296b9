//! A bounded cache: the oldest entry leaves first. Readers are shared by threads, so it locks.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) struct Cache<K, V: ?Sized> {
    entries: Mutex<Entries<K, V>>,
    capacity: usize,
}

struct Entries<K, V: ?Sized> {
    by_key: HashMap<K, Arc<V>>,
    order: VecDeque<K>,
}

impl<K: Eq + Hash + Copy, V: ?Sized> Cache<K, V> {
    /// Holds at most `capacity` entries, and at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        let entries = Entries { by_key: HashMap::new(), order: VecDeque::new() };
        Cache { entries: Mutex::new(entries), capacity: capacity.max(1) }
    }

    /// The value of `key`, if it is here.
    pub(super) fn peek(&self, key: K) -> Option<Arc<V>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.by_key.get(&key).cloned()
    }

    /// The value of `key`, made by `make` if it is not here. Two threads may make the same value;
    /// neither waits for the other.
    pub(crate) fn get<E>(
        &self,
        key: K,
        make: impl FnOnce() -> Result<Arc<V>, E>,
    ) -> Result<Arc<V>, E> {
        let lock = || self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = lock().by_key.get(&key) {
            return Ok(value.clone());
        }
        let value = make()?;
        let mut entries = lock();
        if entries.by_key.insert(key, value.clone()).is_none() {
            entries.order.push_back(key);
            if entries.order.len() > self.capacity
                && let Some(oldest) = entries.order.pop_front()
            {
                entries.by_key.remove(&oldest);
            }
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_holds_more_than_its_capacity() {
        let cache = Cache::<u64, u64>::new(3);
        for key in 0..100 {
            let value = cache.get(key, || Ok::<_, ()>(Arc::new(key * 2)));
            assert_eq!(value, Ok(Arc::new(key * 2)));
        }
        assert_eq!(cache.entries.lock().expect("lock").by_key.len(), 3);
        assert_eq!(cache.get(99, || Err(())), Ok(Arc::new(198)));
        assert_eq!(cache.get(1, || Err(())), Err(()));
        assert_eq!((cache.peek(99), cache.peek(1)), (Some(Arc::new(198)), None));
    }
}
