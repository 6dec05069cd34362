//! Full windows: as many readings as the broker acknowledges.

use std::time::{Duration, Instant};

use humidor::clock;

use super::Target;
use super::frame::Run;
use super::publisher::Publisher;
use super::readiness::Readiness;
use super::subscriber::Subscriber;
use crate::measure::cpu::CpuTimes;
use crate::support::PATIENCE;

/// Before it counts: names are interned, buffers have their size.
const WARM_UP: Duration = Duration::from_millis(500);
/// A subscriber that has got nothing for so long gets no more.
const LOST_AFTER: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);
/// The generator sleeps so long between two looks at its sockets. Else a broker that acknowledges one by one would wake it
/// for each: a tenth of a millisecond costs a window little, and a wake-up costs the broker's thread much.
const PACE: Duration = Duration::from_micros(100);

/// Who publishes and who subscribes.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub name: &'static str,
    pub boards: usize,
    /// Unacknowledged publishes of each board.
    pub window: u64,
    /// Each gets the telemetry of all boards.
    pub subscribers: usize,
    /// Of the subscriptions. The boards publish at QoS 1.
    pub qos: u8,
    /// How old the readings are.
    pub age: Duration,
}

/// What came of it. Counts and CPU times are those of the time that it `lasted`, unless it is said otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Throughput {
    pub lasted: Duration,
    pub acknowledged: u64,
    pub delivered: u64,
    /// Readings acknowledged from the first to the last.
    pub acknowledged_in_all: u64,
    /// Of the deliveries from the first to the last, the share that arrived: 1 when none was lost.
    pub complete: Option<f64>,
    pub cpu: CpuTimes,
}

/// The state at one time.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    acknowledged: u64,
    delivered: u64,
    cpu: CpuTimes,
}

/// Publishes for `lasting` after a warm-up, and then waits for what is on its way.
///
/// # Panics
/// When the broker stops acknowledging.
pub fn closed_loop(target: Target, load: Load, lasting: Duration) -> Throughput {
    let run = Run::next();
    let mut readiness = Readiness::new();
    let mut subscribers: Vec<_> = (0..load.subscribers)
        .map(|number| Subscriber::connect(target, number, load.boards, load.qos))
        .collect();
    let mut boards: Vec<_> =
        (0..load.boards).map(|board| Publisher::connect(target, run, board)).collect();
    let sockets = boards.iter().map(|board| &board.socket);
    let sockets = sockets.chain(subscribers.iter().map(|subscriber| &subscriber.socket));
    sockets.enumerate().for_each(|(index, socket)| readiness.add(socket, index));

    let age_ms = i64::try_from(load.age.as_millis()).expect("fits");
    for board in &mut boards {
        board.publish(load.window, clock::unix_ms() - age_ms);
    }
    let (mut acknowledged, mut delivered) = (0, 0);
    let mark = |at, acknowledged, delivered| {
        let cpu = CpuTimes::now(target.pid);
        Mark { at, acknowledged, delivered, cpu }
    };
    let start = Instant::now();
    let (mut begin, mut end) = (None, None);
    let mut progress = start;
    loop {
        let now = Instant::now();
        if begin.is_none() && now >= start + WARM_UP {
            begin = Some(mark(now, acknowledged, delivered));
        }
        if end.is_none() && now >= start + WARM_UP + lasting {
            end = Some(mark(now, acknowledged, delivered));
        }
        if end.is_some() && boards.iter().all(|board| board.in_flight() == 0) {
            let all = delivered == acknowledged * subscribers.len() as u64;
            if all || now > progress + LOST_AFTER {
                break;
            }
        }
        assert!(now < progress + PATIENCE, "the broker acknowledges nothing more");
        let at_ms = clock::unix_ms() - age_ms;
        std::thread::sleep(PACE);
        for index in readiness.wait(LOOK) {
            let taken = if let Some(board) = boards.get_mut(index) {
                let freed = board.take_acknowledgements();
                acknowledged += freed;
                board.publish(if end.is_none() { freed } else { 0 }, at_ms);
                freed
            } else {
                let taken = subscribers[index - load.boards].take_deliveries();
                delivered += taken;
                taken
            };
            if taken > 0 {
                progress = now;
            }
        }
    }
    let (begin, end) = (begin.expect("it began"), end.expect("it ended"));
    let expected = acknowledged * subscribers.len() as u64;
    #[allow(clippy::cast_precision_loss)] // below 2^53
    let complete = (expected > 0).then(|| delivered as f64 / expected as f64);
    Throughput {
        lasted: end.at - begin.at,
        acknowledged: end.acknowledged - begin.acknowledged,
        delivered: end.delivered - begin.delivered,
        acknowledged_in_all: acknowledged,
        complete,
        cpu: end.cpu.since(begin.cpu),
    }
}
