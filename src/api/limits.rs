//! How much one client may ask. Owns the rates by token and by address. Must never know what is asked.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

use super::problem::{Kind, Problem};
use super::token::TokenName;
use crate::config::ApiSettings;

/// Interval at which clients that are quiet are forgotten.
pub(super) const FORGET: Duration = Duration::from_secs(10);

type Limiter<K> = RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock>;

/// The rates.
#[derive(Debug)]
pub(super) struct Limits {
    addresses: Limiter<IpAddr>,
    tokens: Limiter<TokenName>,
    clock: DefaultClock,
}

impl Limits {
    /// As the settings have them; a client that was quiet may ask as much at once as in a second.
    pub(super) fn new(settings: &ApiSettings) -> Self {
        let quota = |rate| Quota::per_second(NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN));
        let addresses = RateLimiter::keyed(quota(settings.address_rate));
        let tokens = RateLimiter::keyed(quota(settings.token_rate));
        Self { addresses, tokens, clock: DefaultClock::default() }
    }

    /// One request from there.
    pub(super) fn address(&self, address: IpAddr) -> Result<(), Problem> {
        let checked = self.addresses.check_key(&network(address));
        checked.map_err(|until| self.too_many("this address", until.wait_time_from(self.clock.now())))
    }

    /// One request with this token.
    pub(super) fn token(&self, token: &TokenName) -> Result<(), Problem> {
        let checked = self.tokens.check_key(token);
        checked.map_err(|until| self.too_many("this token", until.wait_time_from(self.clock.now())))
    }

    fn too_many(&self, whom: &str, wait: Duration) -> Problem {
        let detail = format!("more requests of {whom} than are allowed in a second: send fewer");
        Problem::new(Kind::TooManyRequests, detail).again_after(wait.as_secs() + 1)
    }

    /// Forgets who is quiet.
    pub(super) fn forget(&self) {
        self.addresses.retain_recent();
        self.tokens.retain_recent();
    }
}

/// Whose address it is: of IPv6 a customer has 64 bits, of which all but the first are of their own choice.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_much_waits_and_nobody_else() {
        let toml = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(toml.path(), "node.name = \"n\"\napi.address_rate = 2\napi.token_rate = 1\n").unwrap();
        let settings = crate::config::Settings::load(Some(toml.path()), std::iter::empty()).unwrap();
        let limits = Limits::new(&settings.api);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(limits.address(address("10.0.0.1")).is_ok() && limits.address(address("::ffff:10.0.0.1")).is_ok());
        let problem = limits.address(address("10.0.0.1")).unwrap_err();
        assert_eq!(problem.kind, Kind::TooManyRequests);
        assert!(limits.address(address("10.0.0.2")).is_ok());
        for host in ["2001:db8::1", "2001:db8::2"] {
            assert!(limits.address(address(host)).is_ok());
        }
        assert!(limits.address(address("2001:db8::3")).is_err(), "one network is one client");
        assert!(limits.address(address("2001:db8:0:1::1")).is_ok());
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert!(limits.token(&a).is_ok() && limits.token(&a).is_err() && limits.token(&b).is_ok());
    }
}
