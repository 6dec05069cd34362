//! Whatever a broker does, in whatever order: once a right one answers, every reading is stored, without holes, and an output
//! is as the last command says, or safe.
//!
//! `HUMIDOR_BROKER_SCRIPTS` sets the number of random scripts, `HUMIDOR_BROKER_SEED` the first one's seed.

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fastrand::Rng;
use humidor::node::{Node, Outbox};
use humidor::reading::{ClockState, Measurement, Stamp};
use humidor::shutdown;
use support::board::config;
use support::fake_broker::{Conduct, FakeBroker, OnConnect, OnPublish, OnSubscribe, Seen};

/// Scripts in a usual run.
const SCRIPTS: u64 = 12;
/// Scripts that run side by side: each mostly waits.
const AT_ONCE: u64 = 100;
/// Longest time for one script: three faulty connections with a missing acknowledgement take half of it, and a busy machine
/// delays pings, which costs reconnects.
const PATIENCE: Duration = Duration::from_mins(6);

fn one_of<T: Copy>(random: &mut Rng, weighted: &[(u32, T)]) -> T {
    let mut place = random.u32(..weighted.iter().map(|(weight, _)| weight).sum::<u32>());
    for (weight, item) in weighted {
        match place.checked_sub(*weight) {
            Some(rest) => place = rest,
            None => return *item,
        }
    }
    unreachable!("the place is below the sum")
}

/// One connection of a broker that misbehaves.
fn conduct(random: &mut Rng) -> Conduct {
    let mut conduct = Conduct::right();
    let code = random.u8(1..=9);
    conduct.connect = one_of(
        random,
        &[
            (12, OnConnect::Accept),
            (1, OnConnect::Refuse(code)),
            (1, OnConnect::Silence),
            (1, OnConnect::Close),
            (1, OnConnect::Nonsense),
        ],
    );
    let some = random.usize(1..40);
    conduct.publish = one_of(
        random,
        &[
            (6, OnPublish::Acknowledge),
            (3, OnPublish::Twice),
            (3, OnPublish::WrongIdsToo),
            (1, OnPublish::Never),
            (1, OnPublish::AllBut(some)),
        ],
    );
    conduct.subscribe = one_of(
        random,
        &[
            (6, OnSubscribe::Grant),
            (2, OnSubscribe::Refuse),
            (1, OnSubscribe::NoCodes),
            (1, OnSubscribe::Silence),
            (1, OnSubscribe::Close),
        ],
    );
    let bytes = random.usize(0..300 * 1024);
    conduct.retained_bytes = one_of(random, &[(3, None), (1, Some(bytes))]);
    conduct.strangers = random.u8(..4) == 0;
    conduct.connacks = random.u8(..6) == 0;
    conduct.dribble = random.u8(..6) == 0 && bytes < 20 * 1024;
    conduct.deaf = random.u8(..12) == 0;
    conduct.pongs = random.u8(..4) > 0;
    conduct.commands = (0..random.usize(..300))
        .map(|_| one_of(random, &[(4, "ON"), (4, "OFF"), (1, "nonsense")]).to_owned())
        .collect();
    let count = random.usize(..50);
    conduct.close_after = one_of(random, &[(2, None), (2, Some(count))]);
    // Every bad connection ends, so that a script does; a few outlast the wait for an acknowledgement.
    let ms = random.u64(100..9_000);
    conduct.close_at =
        one_of(random, &[(9, Some(Duration::from_millis(ms))), (1, Some(Duration::from_secs(35)))]);
    conduct
}

/// Waits for a condition; `Err` with its name when it does not come.
async fn until(what: &str, deadline: Instant, condition: impl Fn() -> bool) -> Result<(), String> {
    while !condition() {
        if Instant::now() >= deadline {
            return Err(format!("waited for: {what}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// The states that the output may have: the last command that a node took, those after it whose acknowledgement did not
/// come back, or the safe one.
fn possible_states(broker: &FakeBroker) -> BTreeSet<String> {
    let mut possible: BTreeSet<String> = ["OFF".to_owned()].into();
    let switching = |it: &&String| *it == "ON" || *it == "OFF";
    for seen in broker.seen() {
        let (taken, unsure) = seen.commanded.split_at(seen.obeyed.min(seen.commanded.len()));
        if let Some(last) = taken.iter().rfind(switching) {
            possible = [last.clone(), "OFF".to_owned()].into();
        }
        possible.extend(unsure.iter().filter(switching).cloned());
    }
    possible
}

async fn script(seed: u64) -> Result<(), String> {
    let mut random = Rng::with_seed(seed);
    let data = tempfile::tempdir().unwrap();
    let readings = random.u64(1..900);
    let bad: Vec<Conduct> = (0..random.usize(1..4)).map(|_| conduct(&mut random)).collect();
    let outbox = Outbox::open(data.path(), "before".parse().unwrap(), 100_000).unwrap();
    let push = |outbox: &Outbox| {
        let stamp = Stamp { at_ms: 1_760_000_000_000, clock: ClockState::Synced, mono_ms: 1 };
        let measurement = Measurement { temperature_dc: 215, humidity_dp: 571 };
        outbox.push(&"hall".parse().unwrap(), stamp, measurement);
    };
    (0..readings).for_each(|_| push(&outbox));
    drop(outbox);

    // A right broker may well have a large message from a stranger.
    let mut last = Conduct::right();
    last.retained_bytes = one_of(&mut random, &[(1, None), (1, Some(256 * 1024))]);
    let broker = FakeBroker::start(bad.iter().cloned().chain([last]).collect());
    let (trigger, stopped) = shutdown::channel();
    let node =
        Node::start(config("prop", data.path(), broker.address, Duration::from_secs(5)), stopped)
            .map_err(|it| it.to_string())?;
    let (deadline, fresh) = (Instant::now() + PATIENCE, random.u64(..60));
    for _ in 0..fresh {
        push(node.outbox());
        tokio::time::sleep(Duration::from_millis(random.u64(..40))).await;
    }
    let boot = node.outbox().boot().to_string();
    // The connections to the right broker: usually one.
    let right = |look: &dyn Fn(&[Seen]) -> bool| {
        broker.with_seen(|all| look(all.get(bad.len()..).unwrap_or_default()))
    };
    let state = || {
        broker.with_seen(|all| {
            let published = all.get(bad.len()..)?.iter().flat_map(|seen| &seen.published);
            let last = published.filter(|(_, it)| it.topic.ends_with("/output/fan")).last()?;
            Some(String::from_utf8_lossy(&last.1.payload).into_owned())
        })
    };
    let failed = |what: String| {
        let health = node.health().assess().1;
        format!("seed {seed}: {what}; {health}; script {bad:#?}")
    };
    let outcome = async {
        until("the right broker's turn", deadline, || right(&|it| !it.is_empty())).await?;
        until("the outbox is empty", deadline, || node.outbox().depth() == 0).await?;
        let stored: BTreeSet<(String, u64)> = broker.stored().into_iter().collect();
        let taken = (1..=readings).map(|n| ("before".to_owned(), n));
        let taken: BTreeSet<(String, u64)> =
            taken.chain((1..=fresh).map(|n| (boot.clone(), n))).collect();
        if stored != taken {
            return Err(format!("{} of {} are stored", stored.len(), taken.len()));
        }
        until("the output's state", deadline, || state().is_some()).await?;
        let (state_now, possible) = (state().unwrap_or_default(), possible_states(&broker));
        if !possible.contains(&state_now) {
            return Err(format!("the output is {state_now}, not one of {possible:?}"));
        }
        let subscribed = |it: &Seen| it.subscribed.iter().any(|filter| filter.ends_with("/set"));
        until("commands are subscribed to", deadline, || {
            right(&|it| it.last().is_some_and(subscribed))
        })
        .await?;
        for command in ["OFF", "ON"] {
            // Again after a while: on a busy machine a ping may have come too late, and the connection is another one.
            while state().as_deref() != Some(command) {
                broker.command("prop", command, 501);
                let soon = Instant::now() + Duration::from_secs(10);
                let switched = until(command, soon, || state().as_deref() == Some(command)).await;
                if Instant::now() > deadline {
                    switched?;
                }
            }
        }
        Ok(())
    };
    let outcome = outcome.await.map_err(failed);
    trigger.throw();
    let _ = node.ended().await;
    outcome
}

#[test]
fn after_any_broker_a_right_one_has_every_reading_and_the_last_command_counts() {
    let number = |name: &str| std::env::var(name).ok().map(|it| it.parse::<u64>().expect(name));
    let scripts = number("HUMIDOR_BROKER_SCRIPTS").unwrap_or(SCRIPTS);
    let first = number("HUMIDOR_BROKER_SEED").unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(8).enable_all().build().unwrap();
    let failures: Vec<String> = runtime.block_on(async {
        let (mut running, mut failures) = (tokio::task::JoinSet::new(), Vec::new());
        for seed in first..first + scripts {
            if running.len() as u64 >= AT_ONCE
                && let Some(Ok(Err(failure))) = running.join_next().await
            {
                failures.push(failure);
            }
            running.spawn(script(seed));
        }
        while let Some(outcome) = running.join_next().await {
            failures.extend(outcome.unwrap().err());
        }
        failures
    });
    assert!(failures.is_empty(), "{} of {scripts}: {}", failures.len(), failures.join("\n"));
}
