use std::os::fd::AsFd as _;

use super::*;
use crate::{
    config::{EngineChoice, Options, Source, load},
    privilege::Channel,
    snapshot::Builder,
    sys::fdpass,
};

fn config(text: &str) -> Arc<Config> {
    let source = Source {
        name: "c.toml".to_owned(),
        bytes: text.into(),
    };
    Arc::new(load(&source, Options::default()).unwrap().config)
}

#[tokio::test]
async fn the_late_end_of_what_was_given_up_does_not_touch_what_is_prepared_after_it() {
    // without frontends in packet modes the broker is told that all is settled, and nothing else
    let (ours, broker) = fdpass::pair().unwrap();
    let answering = std::thread::spawn(move || {
        let (request, _) = fdpass::receive(broker.as_fd()).unwrap();
        assert_eq!(request, br#"{"number":1,"verb":"xdp_settled"}"#);
        fdpass::send(broker.as_fd(), br#"{"number":1,"outcome":"done"}"#, &[]).unwrap();
        broker
    });
    let (client, _news) = Client::start(Channel::over(ours, 1, "c.toml".to_owned())).unwrap();
    let first = config("[global]");
    let pools = Arc::new(Pools::of(&first));
    let mut builder = Builder::new(1, Arc::default());
    let snapshot = builder.build(&first, &pools, Instant::now()).snapshot;
    let (orders, mut inbox) = mpsc::unbounded_channel();
    let environment = Environment {
        threads: PacketThreads {
            workers: 1,
            first_shard: 0,
            engine: EngineChoice::Raw,
        },
        broker: client,
        snapshot: Arc::new(ArcSwap::new(snapshot)),
        engine: Arc::default(),
        view: watch::channel(Arc::default()).0,
        orders: orders.downgrade(),
    };
    let top = tempfile::tempdir().unwrap();
    let mut plane = Plane::new(environment, top.path().join("record"));
    let mut guards = Vec::new();
    for _ in 0..2 {
        let (reply, armed) = oneshot::channel();
        plane.arm(Arc::clone(&first), &pools, reply).await;
        guards.push(armed.await.unwrap().unwrap());
    }
    let second = guards.pop().unwrap();
    drop(guards);
    let Some(Order::Disarm(number)) = inbox.recv().await else {
        panic!("its end is told");
    };
    plane.disarm(number).await;
    plane.commit(second.number, Arc::clone(&first)).await;
    assert!(plane.config.is_some(), "the second takes effect");
    drop(second);
    let broker = answering.join().unwrap();
    assert!(fdpass::try_receive(broker.as_fd()).is_err(), "told once");
}
