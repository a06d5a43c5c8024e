//! Applications of OfficeRnD that are replaced, as docs/operations.md says, and deleted too early.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use broker_host::Clock;
use broker_host::sandbox::{Application, Config};
use futures_util::future::join_all;
use tests::{Broker, MEMBERS, random, read, revocation_request, secret};
use tokio::sync::RwLock;
use tokio::time::sleep;

use super::{Calls, Row, check, check_sound, in_words, many_instances, one_instance, readiness, timed};

const ID: &str = "officernd_client_id";
const SECRET: &str = "officernd_client_secret";
const ID_NEXT: &str = "officernd_client_id_next";
const SECRET_NEXT: &str = "officernd_client_secret_next";

/// Longer than an instance keeps its configuration.
const ROLLED_OUT: Duration = Duration::from_secs(11);

/// Scope sets of the jobs: more than OfficeRnD's limit lets the broker fetch within a minute.
const JOBS: usize = 8;

/// The steps of the rotation on the operations page, in order: the first, bold words of each.
fn steps_of_the_page() -> Vec<String> {
    let page = read("docs/operations.md");
    let section = page.split("\n## Rotate an application's secret\n").nth(1).expect("the page has the section");
    let section = section.split("\n```").next().expect("a split has a first part");
    let step = |line: &str| Some(line.split_once(". **")?.1.split_once("**")?.0.to_owned());
    section.lines().filter_map(step).collect()
}

/// Jobs that ask two brokers on one store all the time and use what they get.
struct World {
    hosts: [Broker; 2],
    clock: Clock,
    /// Set ahead only while no job has a token in hand.
    time: RwLock<Duration>,
    scopes: Vec<String>,
    /// How often each job has used a token.
    used: Vec<AtomicUsize>,
    /// Client ids of the tokens that were just used.
    owners: Mutex<Vec<String>>,
    failures: Mutex<Vec<String>>,
    slowest: Mutex<Duration>,
    is_over: AtomicBool,
}

impl World {
    /// Two brokers with variables of their own, on one store. The sandbox follows their clock.
    async fn start() -> Self {
        let mut setup = many_instances();
        let scopes = setup.with_scopes(JOBS);
        setup.sandbox = Config { clock: setup.clock.clone(), ..Config::default() };
        let clock = setup.clock.clone();
        let first = setup.start().await;
        let second = first.beside_with(first.setup.variables(&first.sandbox.url())).await;
        let used = scopes.iter().map(|_| AtomicUsize::default()).collect();
        Self {
            hosts: [first, second],
            clock,
            time: RwLock::default(),
            scopes,
            used,
            owners: Mutex::default(),
            failures: Mutex::default(),
            slowest: Mutex::default(),
            is_over: AtomicBool::default(),
        }
    }

    /// A job: asks one host after the other, and uses each token at OfficeRnD's API.
    async fn job(&self, number: usize) {
        let mut turn = number;
        while !self.is_over.load(Ordering::Relaxed) {
            {
                let _time = self.time.read().await;
                let host = &self.hosts[turn % 2];
                let (answer, took) = timed(host.nightly(&self.scopes[number])).await;
                let mut slowest = self.slowest.lock().unwrap();
                *slowest = slowest.max(took);
                if answer.status != 200 {
                    self.failures.lock().unwrap().push(in_words(&answer));
                } else if !host.sandbox.accepts(&answer.token()) {
                    self.failures.lock().unwrap().push("the API refuses the token".to_owned());
                } else if let Some(owner) = host.sandbox.owner(&answer.token()) {
                    self.owners.lock().unwrap().push(owner);
                }
            }
            self.used[number].fetch_add(1, Ordering::Relaxed);
            turn += 1;
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lets time pass, and then every job use three tokens. Returns their client ids.
    async fn pass(&self, time: Duration) -> Vec<String> {
        {
            let mut ahead = self.time.write().await;
            // No call lasts for minutes only because the clock has jumped.
            tokio::join!(self.hosts[0].at_rest(), self.hosts[1].at_rest());
            *ahead += time;
            self.clock.set_ahead(*ahead);
            self.owners.lock().unwrap().clear();
        }
        let used = || self.used.iter().map(|used| used.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let before = used();
        while used().iter().zip(&before).any(|(now, before)| *now < before + 3) {
            sleep(Duration::from_millis(20)).await;
        }
        let mut owners = self.owners.lock().unwrap().clone();
        owners.sort();
        owners.dedup();
        owners
    }

    /// Fetches a token for every job, as fast as the call quota allows.
    async fn prepare(&self) {
        for scope in &self.scopes {
            while self.hosts[0].nightly(scope).await.status != 200 {
                let mut ahead = self.time.write().await;
                *ahead += Duration::from_secs(66);
                self.clock.set_ahead(*ahead);
            }
        }
        self.hosts[0].at_rest().await;
    }

    /// Writes variables one by one at the first host, whose instances may read them in between.
    /// Then the second host gets all at once, as if restarted.
    async fn roll_out(&self, writes: &[(&str, &str)]) {
        for (name, value) in writes {
            self.hosts[0].variables.set(*name, *value);
            self.pass(ROLLED_OUT).await;
        }
        {
            let _no_job_reads = self.time.write().await;
            writes.iter().for_each(|(name, value)| self.hosts[1].variables.set(*name, *value));
        }
        self.pass(ROLLED_OUT).await;
    }

    fn calls(&self) -> usize {
        self.hosts[0].calls().len()
    }
}

async fn rotation_of_the_page() -> Row {
    let world = World::start().await;
    world.prepare().await;
    let [host, _] = &world.hosts;
    let old = host.setup.application.clone();
    let new = Application { id: random("new-application"), secret: secret("new-secret"), ..old.clone() };
    let mut steps = steps_of_the_page().into_iter();
    let mut step = |expected| assert_eq!(steps.next().as_deref(), expected, "docs/operations.md");
    let calls_before = world.calls();
    let script = async {
        step(Some("Create"));
        host.sandbox.create_application(new.clone());
        assert_eq!(world.pass(Duration::ZERO).await, [old.id.as_str()]);

        step(Some("Configure both"));
        world.roll_out(&[(SECRET_NEXT, &new.secret), (ID_NEXT, &new.id)]).await;
        assert_eq!(world.pass(Duration::from_secs(60)).await, [old.id.as_str()], "the new pair is used too early");

        step(Some("Swap"));
        world.roll_out(&[(SECRET_NEXT, &old.secret), (ID_NEXT, &old.id), (ID, &new.id), (SECRET, &new.secret)]).await;
        assert_eq!(world.calls(), calls_before, "the tokens of the old pair are not served any more");

        step(Some("Empty"));
        let mut owners = Vec::new();
        for _ in 0..30 {
            owners = world.pass(Duration::from_secs(120)).await;
        }
        assert_eq!(owners, [new.id.as_str()], "an hour later every token is one of the new application");
        world.roll_out(&[(ID_NEXT, ""), (SECRET_NEXT, "")]).await;

        step(Some("Delete"));
        host.sandbox.delete_application(&old.id);
        for _ in 0..3 {
            assert_eq!(world.pass(Duration::from_secs(60)).await, [new.id.as_str()]);
        }
        step(None);
        world.is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(script, join_all((0..JOBS).map(|number| world.job(number))));
    world.hosts.iter().for_each(check_sound);
    assert_eq!(*world.failures.lock().unwrap(), [""; 0], "{}", host.server.output());
    let limited = host.calls().iter().filter(|call| call.status == Some(429)).count();
    assert_eq!(limited, 0, "more than five calls in a minute");
    Row {
        fault: "an application is replaced as the operations page says, while jobs ask two hosts",
        saw: "200".into(),
        calls: Calls::AtMostFiveAMinute,
        at_most: 6.0,
        slowest: *world.slowest.lock().unwrap(),
    }
}

/// The old application is deleted although it is still in use, or its tokens are. A job that the API
/// refuses does as docs/jobs.md says: it revokes its token once and asks again.
async fn deleted_too_early(fault: &'static str, is_swapped: bool) -> Row {
    let mut setup = many_instances();
    let scopes = setup.with_scopes(3);
    setup.without_door();
    setup.sandbox.clock = setup.clock.clone();
    let broker = setup.start().await;
    for scope in &scopes {
        broker.nightly(scope).await.token();
    }
    let old = broker.setup.application.clone();
    let new = Application { id: random("new-application"), secret: secret("new-secret"), ..old.clone() };
    broker.sandbox.create_application(new.clone());
    let (current, next) = if is_swapped { (&new, &old) } else { (&old, &new) };
    for (name, value) in
        [(ID, &current.id), (SECRET, &current.secret), (SECRET_NEXT, &next.secret), (ID_NEXT, &next.id)]
    {
        broker.variables.set(name, value);
    }
    broker.at_rest().await;
    // The calls so far no longer count.
    let ahead = Duration::from_secs(70);
    broker.setup.clock.set_ahead(ahead);
    broker.sandbox.delete_application(&old.id);

    let calls = broker.calls().len();
    let mut slowest = Duration::ZERO;
    let mut refused = Vec::new();
    for scope in &scopes {
        let token = broker.nightly(scope).await.token();
        assert!(!broker.sandbox.accepts(&token), "deleting an application revokes its tokens");
        let (revoked, took) = timed(broker.send(revocation_request(&broker.setup.nightly, &token))).await;
        assert_eq!(revoked.status, 200, "{revoked:?} {}", broker.server.output());
        slowest = slowest.max(took);
        refused.push(token);
    }
    // Longer than an instance serves a token without asking the store.
    broker.setup.clock.set_ahead(ahead + Duration::from_secs(3));
    for scope in &scopes {
        let (answer, took) = timed(broker.nightly(scope)).await;
        assert!(broker.sandbox.accepts(&answer.token()), "{answer:?} {}", broker.server.output());
        assert_eq!(broker.sandbox.owner(&answer.token()), Some(new.id.clone()));
        slowest = slowest.max(took);
    }
    broker.at_rest().await;
    let advice = "OfficeRnD refuses officernd_client_id with officernd_client_secret and accepts \
                  officernd_client_id_next with officernd_client_secret_next: swap the two pairs";
    assert_eq!(broker.server.output().contains(advice), !is_swapped, "{}", broker.server.output());
    check_sound(&broker);
    Row {
        fault,
        saw: "3 × revocation 200, then a token of the new application 200".into(),
        calls: (broker.calls().len() - calls).into(),
        at_most: 4.0,
        slowest,
    }
}

async fn id_without_a_secret() -> Row {
    let mut setup = one_instance();
    setup.variables.push((ID_NEXT, random("new-application")));
    let broker = setup.start().await;
    let (answer, slowest) = timed(broker.nightly(MEMBERS)).await;
    let saw = format!("{}; `/readyz` {}", in_words(&answer), readiness(&broker).await);
    let mistake = "officernd_client_id_next: is ignored without officernd_client_secret_next";
    assert!(broker.server.output().contains(mistake), "{}", broker.server.output());
    check_sound(&broker);
    Row {
        fault: "a next client id without a next secret",
        saw,
        calls: broker.calls().len().into(),
        at_most: 1.0,
        slowest,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_that_are_replaced_get_the_answers_of_faults_md() {
    let rows = tokio::join!(
        rotation_of_the_page(),
        deleted_too_early("OfficeRnD deletes the old application before the swap, and three jobs recover", false),
        deleted_too_early("OfficeRnD deletes it right after the swap, and three jobs recover", true),
        id_without_a_secret(),
    );
    check("Applications that are replaced", &<[Row; 4]>::from(rows), &[]);
}
