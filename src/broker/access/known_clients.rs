//! The clients that have logged in before, by user and address. They have guesses of their own, also after a restart, so
//! that the wrong passwords of others do not keep them out. Pure: files and time are elsewhere.
//!
//! A client is known by keyed tags. They tell nothing of passwords, and no names without their key.

use std::collections::HashMap;
use std::net::IpAddr;

use ring::hmac;

/// Tags that are kept, of all users together: one of each client and one of each of its addresses. Beyond it the oldest
/// one goes, of the user with most.
const KNOWN: usize = 8192;
const KEY_BYTES: usize = 32;
/// A user's tag, and one of its clients or addresses.
const RECORD_BYTES: usize = 16;
/// Bytes of the file at most.
pub const FILE_MAX_BYTES: usize = KEY_BYTES + KNOWN * RECORD_BYTES;

/// A login's tags, and whether they are known.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    user: u64,
    /// Of this client at this address.
    pub client: u64,
    /// Of this address.
    pub address: u64,
    /// Whether this client has logged in from this address before.
    pub knows_client: bool,
    /// Whether any client of the user has.
    pub knows_address: bool,
}

/// The tags of all users.
#[derive(Debug)]
pub struct KnownClients {
    bytes: [u8; KEY_BYTES],
    key: hmac::Key,
    /// By user, the one without a login for longest first.
    users: HashMap<u64, Vec<u64>>,
    unsaved: bool,
}

impl KnownClients {
    /// Nobody is known yet. `key` is random.
    pub fn new(key: [u8; KEY_BYTES]) -> Self {
        let users = HashMap::new();
        Self { bytes: key, key: hmac::Key::new(hmac::HMAC_SHA256, &key), users, unsaved: false }
    }

    /// Those of an earlier run; `None` when this is no such file.
    pub fn read(file: &[u8]) -> Option<Self> {
        let (key, records) = file.split_first_chunk()?;
        if !records.len().is_multiple_of(RECORD_BYTES) || records.len() > KNOWN * RECORD_BYTES {
            return None;
        }
        let mut known = Self::new(*key);
        for record in records.chunks_exact(RECORD_BYTES) {
            let (user, tag) = record.split_first_chunk()?;
            let tag = u64::from_le_bytes(tag.try_into().ok()?);
            known.users.entry(u64::from_le_bytes(*user)).or_default().push(tag);
        }
        Some(known)
    }

    /// What [`KnownClients::read`] reads; `None` when nothing is new since the last call.
    pub fn save(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.unsaved) {
            return None;
        }
        let mut file = self.bytes.to_vec();
        for (user, tags) in &self.users {
            for tag in tags {
                file.extend(user.to_le_bytes());
                file.extend(tag.to_le_bytes());
            }
        }
        Some(file)
    }

    /// Whether there is something to save.
    pub const fn is_unsaved(&self) -> bool {
        self.unsaved
    }

    /// Looks a login of the user `name` up.
    pub fn see(&self, name: &str, address: IpAddr, client: &str) -> Seen {
        let place = address.to_string();
        let user = self.tag(&[name]);
        let [client, address] = [self.tag(&[name, &place, client]), self.tag(&[name, &place])];
        let tags = self.users.get(&user).map_or(&[][..], Vec::as_slice);
        let [knows_client, knows_address] = [client, address].map(|tag| tags.contains(&tag));
        Seen { user, client, address, knows_client, knows_address }
    }

    /// A login was right.
    pub fn remember(&mut self, seen: Seen) {
        let tags = self.users.entry(seen.user).or_default();
        for tag in [seen.client, seen.address] {
            match tags.iter().position(|other| *other == tag) {
                // Among the younger half: there is no need to move it.
                Some(at) if at >= tags.len() / 2 => {}
                Some(at) => tags[at..].rotate_left(1),
                None => {
                    tags.push(tag);
                    self.unsaved = true;
                }
            }
        }
        while self.users.values().map(Vec::len).sum::<usize>() > KNOWN
            && let Some(most) = self.users.values_mut().max_by_key(|tags| tags.len())
        {
            most.remove(0);
        }
    }

    fn tag(&self, parts: &[&str]) -> u64 {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            // A name, an address and a client id have no such byte.
            context.update(part.as_bytes());
            context.update(&[0]);
        }
        let tag = context.sign();
        tag.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    fn knows(known: &KnownClients, name: &str, from: u32, client: &str) -> (bool, bool) {
        let seen = known.see(name, address(from), client);
        (seen.knows_client, seen.knows_address)
    }

    #[test]
    fn a_client_is_known_by_user_address_and_id_also_in_the_next_run() {
        let mut known = KnownClients::new([7; 32]);
        assert_eq!(known.save(), None);
        known.remember(known.see("press", address(1), "board"));
        let file = known.save().unwrap();
        assert!(!known.is_unsaved());
        known.remember(known.see("press", address(1), "board"));
        assert_eq!(known.save(), None, "it was known");
        let next = KnownClients::read(&file).unwrap();
        for (name, from, client, expected) in [
            ("press", 1, "board", (true, true)),
            ("press", 1, "other", (false, true)),
            ("press", 2, "board", (false, false)),
            ("oven", 1, "board", (false, false)),
        ] {
            assert_eq!(knows(&next, name, from, client), expected, "{name} {from} {client}");
        }
        let long = vec![0; FILE_MAX_BYTES + RECORD_BYTES];
        for wrong in [&file[..31], &file[..40], &long, &[]] {
            assert!(KnownClients::read(wrong).is_none(), "{} bytes", wrong.len());
        }
    }

    #[test]
    fn a_user_with_ever_new_client_ids_forgets_its_own() {
        let mut known = KnownClients::new([7; 32]);
        known.remember(known.see("press", address(1), "board"));
        for n in 0..2 * KNOWN {
            known.remember(known.see("random", address(1), &n.to_string()));
        }
        assert_eq!(known.users.values().map(Vec::len).sum::<usize>(), KNOWN);
        assert_eq!(knows(&known, "press", 1, "board"), (true, true));
        assert_eq!(knows(&known, "random", 1, "0"), (false, true), "the address was there lately");
        let latest = (2 * KNOWN - 1).to_string();
        assert_eq!(knows(&known, "random", 1, &latest), (true, true));
        assert!(KnownClients::read(&known.save().unwrap()).is_some());
    }
}
