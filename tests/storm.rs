//! A storm of boards: all clients of a hall connect in the same moment, as after a power cut, within the limits. None is
//! turned away, also when their earlier connections have just ended, and also beside sockets that say nothing.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{PATIENCE, broker, packets};

/// Clients of one address; the limit is 1,500.
const CLIENTS: usize = 1400;
/// Threads that connect them.
const THREADS: usize = 4;

/// Each client needs a descriptor here, and silent sockets more.
fn allow_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = Some(maximum.map_or(8192, |maximum| maximum.min(8192)));
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

/// What the clients send in their CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Each connects and sends its CONNECT.
    Each,
    /// All connect, then all send their CONNECTs.
    ConnectionsFirst,
}

/// Connects all clients at once; each has to be accepted. Returns the time until the last was.
fn storm(address: SocketAddr, order: Order, will: bool) -> (Vec<TcpStream>, Duration) {
    let started = Instant::now();
    let open = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let connect = |n: usize| {
        let id = format!("board-{n}");
        let topic = format!("humidor/{id}/status");
        if will {
            packets::connect_with_will(&id, true, 60, &topic, b"offline", true)
        } else {
            packets::connect(&id, true)
        }
    };
    let of_thread = |thread: usize| {
        let numbers = (0..CLIENTS).filter(move |n| n % THREADS == thread);
        let mut clients: Vec<(usize, TcpStream)> = match order {
            Order::Each => numbers
                .map(|n| {
                    let mut stream = open();
                    stream.write_all(&connect(n)).unwrap();
                    (n, stream)
                })
                .collect(),
            Order::ConnectionsFirst => {
                let mut clients: Vec<_> = numbers.map(|n| (n, open())).collect();
                for (n, stream) in &mut clients {
                    stream.write_all(&connect(*n)).unwrap();
                }
                clients
            }
        };
        for (n, stream) in &mut clients {
            let mut connack = [0; 4];
            let read = stream.read_exact(&mut connack);
            assert!(read.is_ok(), "client {n} was turned away: {read:?}");
            assert_eq!(connack, [0x20, 2, 0, 0], "client {n}");
        }
        clients.into_iter().map(|(_, stream)| stream).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || of_thread(thread))).collect();
        let clients = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (clients, started.elapsed())
    })
}

/// Each client publishes and is acknowledged.
fn assert_acknowledged(clients: &mut [TcpStream]) {
    for stream in &mut *clients {
        stream.write_all(&packets::publish("t", 1, false, 1, b"x")).unwrap();
    }
    for stream in clients {
        let mut puback = [0; 4];
        stream.read_exact(&mut puback).unwrap();
        assert_eq!(puback, [0x40, 2, 0, 1]);
    }
}

fn rounds(rounds: usize, silent: usize) {
    allow_files();
    let data = tempfile::tempdir().unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let _silent: Vec<TcpStream> =
        (0..silent).map(|_| TcpStream::connect(address).unwrap()).collect();
    for round in 0..rounds {
        let order = if round % 2 == 0 { Order::Each } else { Order::ConnectionsFirst };
        let will = round % 4 >= 2;
        let (mut clients, took) = storm(address, order, will);
        assert_acknowledged(&mut clients);
        println!("round {round}, {order:?}, wills {will}: {CLIENTS} accepted in {took:?}");
        // All of them end, and the next round begins at once.
    }
}

#[test]
fn a_hall_that_comes_back_at_once_is_accepted_whole() {
    rounds(4, 0);
}

#[test]
fn silent_sockets_keep_no_board_out() {
    rounds(2, 400);
}

#[test]
#[ignore = "takes minutes: 20 rounds of 1,400 clients"]
fn twenty_storms_turn_nobody_away() {
    rounds(20, 0);
    rounds(20, 400);
}
