//! What a seed plays: hosts, callers, faults.

use std::time::Duration;

use officernd_token_broker::mutation::Rule;

/// Parameters of a run. Everything else follows from the seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Seed from which latencies, requests and faults are drawn.
    pub seed: u64,
    /// Rule that is switched off.
    pub broken: Option<Rule>,
    /// Number of hosts, each with a clock of its own.
    pub hosts: usize,
    /// How a host uses its instances.
    pub reuse: Reuse,
    /// Number of callers, each with a scope set of its own.
    pub callers: usize,
    /// Lifetime of a token.
    pub token_life: Duration,
    /// The variable `min_remaining_seconds`.
    pub min_remaining: Duration,
    /// Whether OfficeRnD returns the same token until it expires.
    pub reissues: bool,
    /// How long requests and faults continue.
    pub eventful: Duration,
    /// Average pause between two requests.
    pub pause: Duration,
    /// Kinds of faults that occur.
    pub faults: Faults,
}

/// How a host uses its instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// So many instances side by side, each replaced after 128 requests.
    Kept(usize),
    /// As many instances as needed. Each handles up to 16 requests at the same time, and ends after
    /// 128 requests or after 1 s without any.
    AsSpin,
    /// A new instance for each request.
    Never,
}

/// The kinds of faults of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// OfficeRnD is down, hangs, limits, answers garbage or refuses the credential.
    pub upstream: bool,
    /// The store has one or more troubles, or loses or corrupts values.
    pub store: bool,
    /// The variables are slow or cannot be read, or the policy has a mistake.
    pub variables: bool,
    /// Instances, requests and follow-ups are dropped at any await.
    pub kills: bool,
    /// The clocks of hosts differ by up to 5 s, and step by as much.
    pub clocks: bool,
    /// Many requests arrive at the same moment.
    pub crowds: bool,
    /// One more caller asks for a new scope set each time.
    pub greed: bool,
    /// Callers revoke tokens that they were given.
    pub revocations: bool,
}

impl Scenario {
    /// Returns the scenario of a seed. Over many seeds, every kind of fault occurs alone, in
    /// pairs, and with all others.
    pub fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (token_life, min_remaining) =
            random.choice([(3600, 300), (900, 300), (600, 120), (200, 60), (150, 60)]).expect("five");
        let reuse = [Reuse::Kept(random.usize(1..=3)), Reuse::AsSpin, Reuse::AsSpin, Reuse::Never];
        Self {
            seed,
            broken: None,
            hosts: random.usize(1..=4),
            reuse: random.choice(reuse).expect("four"),
            callers: random.usize(2..=5),
            token_life: Duration::from_secs(token_life),
            min_remaining: Duration::from_secs(min_remaining),
            reissues: random.bool(),
            eventful: Duration::from_secs(random.u64(120..=900)),
            pause: Duration::from_millis(random.u64(300..=5000)),
            faults: Faults {
                upstream: random.bool(),
                store: random.u8(..) < 170,
                variables: random.u8(..) < 85,
                kills: random.bool(),
                clocks: random.bool(),
                crowds: random.bool(),
                greed: random.u8(..) < 85,
                revocations: random.u8(..) < 85,
            },
        }
    }

    /// Returns a scenario in which two callers share the call quota with one that asks for a new
    /// scope set each time, and nothing fails.
    pub fn beside_greed(seed: u64) -> Self {
        let faults = Faults { greed: true, crowds: seed.is_multiple_of(2), ..Faults::default() };
        Self { callers: 2, reissues: false, faults, ..Self::of(seed) }
    }

    /// Returns a scenario without faults: one host with one instance, one caller, tokens that
    /// live an hour.
    pub(crate) fn calm(seed: u64) -> Self {
        Self {
            seed,
            broken: None,
            hosts: 1,
            reuse: Reuse::Kept(1),
            callers: 1,
            token_life: Duration::from_secs(3600),
            min_remaining: Duration::from_secs(300),
            reissues: false,
            eventful: Duration::ZERO,
            pause: Duration::ZERO,
            faults: Faults::default(),
        }
    }
}
