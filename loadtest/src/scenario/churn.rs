//! Members come and go, and everybody in a topic has to hear of it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use culvert_wire::limits::MAX_MEMBERS;
use culvert_wire::{ConnId, Frame, Handle, Members, TopicId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::field::{Field, SETTLE};
use super::idle::shared_topic;
use super::pacer::Pacer;
use super::steady::check_rate;
use crate::frames::{ConnectError, Ended, Event, Peer, SMALL_BUFFER};
use crate::measure::{Count, Series};
use crate::plan::Plan;
use crate::stage::{Ending, Stage};

/// How often it is looked whether everybody knows everything.
const LOOK: Duration = Duration::from_millis(10);
/// Members that a topic may have on average, so that an answer always lists all of them.
const CROWD: usize = MAX_MEMBERS / 2;

/// Settings of `churn`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
pub struct Churn {
    /// Peers, each of which is in one topic at a time.
    #[arg(long, default_value_t = 200)]
    pub peers: usize,
    /// Topics between which they move.
    #[arg(long, default_value_t = 20)]
    pub topics: usize,
    /// Moves a second, of all peers together. In a move a peer leaves its topic and joins another one.
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// Share of the moves, from 0 to 1, in which a peer also drops its connection and makes a new one.
    #[arg(long, default_value_t = 0.1)]
    pub reconnect_share: f64,
}

impl Churn {
    /// See [`crate::scenario::Scenario::check`].
    pub(super) fn check(&self, plan: &Plan) -> Result<()> {
        let workers = plan.share.of;
        ensure!(self.peers >= 2 * workers, "--peers must be at least {}, two for each worker", 2 * workers);
        ensure!(self.topics > workers, "--topics must be at least {}", workers + 1);
        let crowd = self.peers <= self.topics * CROWD;
        ensure!(
            crowd,
            "--peers must be at most {CROWD} times --topics: an answer lists {MAX_MEMBERS} members"
        );
        ensure!((0.0..=1.0).contains(&self.reconnect_share), "--reconnect-share must be from 0 to 1");
        check_rate("--rate", Some(self.rate))
    }

    pub(super) fn connections(&self) -> usize {
        self.peers
    }
}

/// What all members of a worker know together.
struct Plaza {
    topics: usize,
    reconnect_share: f64,
    /// When a connection asked to join a topic, and when it said that it leaves, by the stage's clock.
    came: RefCell<HashMap<(ConnId, usize), u64>>,
    went: RefCell<HashMap<(ConnId, usize), u64>>,
    views: RefCell<Vec<View>>,
}

/// Where a member is, and whom it sees there.
#[derive(Default)]
struct View {
    at: Option<(ConnId, usize)>,
    sees: HashSet<ConnId>,
    busy: Cell<bool>,
}

pub(super) async fn run(settings: &Churn, stage: &Stage) -> Result<Ending> {
    let field = Field::new(stage).await?;
    let share = stage.share();
    let count = share.part(settings.peers);
    let plaza = Rc::new(Plaza {
        topics: share.part(settings.topics).max(2),
        reconnect_share: settings.reconnect_share,
        came: RefCell::default(),
        went: RefCell::default(),
        views: RefCell::default(),
    });
    plaza.views.borrow_mut().resize_with(count, View::default);
    let peers = field.crew.gather(count, async |local| plaza.enter(&field, local, local).await).await?;
    let mut tasks = JoinSet::new();
    let mut orders = Vec::with_capacity(count);
    for (local, (peer, handle)) in peers.into_iter().enumerate() {
        // One order at a time: a member that is still on its way is not sent on.
        let (order, taken) = mpsc::channel(1);
        orders.push(order);
        tasks.spawn_local(live(field.clone(), plaza.clone(), local, peer, handle, taken));
    }
    stage.ready().await;
    tasks.spawn_local({
        let field = field.clone();
        let rate = settings.rate * count as f64 / settings.peers as f64;
        async move {
            let pacer = Pacer::new(&field, orders.len(), rate);
            let moves = pacer.run(field.clone(), |local, _due| {
                if orders[local].try_send(()).is_err() {
                    field.recorder.add(Count::Unsent, 1);
                }
            });
            if let Err(error) = moves.await {
                field.fail(format!("members could not move when they were due: {error}"));
            }
            // The members end when nobody can send them anywhere; they are to stay.
            std::future::pending::<()>().await;
        }
    });
    stage.over().await;
    field.stop();
    let wrong = plaza.settle().await;
    if wrong > 0 {
        field.recorder.add(Count::Missing, wrong);
        field.fail(format!(
            "{wrong} notices about members were never given: {SETTLE:?} after the last move, members still \
             see others that have left, or do not see others that are there"
        ));
    }
    Ok(field.finish().await)
}

impl Plaza {
    fn topic(&self, field: &Field, number: usize) -> TopicId {
        shared_topic(field, number, 0)
    }

    /// Connects a member and lets it into a topic.
    async fn enter(
        &self,
        field: &Field,
        local: usize,
        number: usize,
    ) -> Result<(Peer, Handle), ConnectError> {
        let mut peer = field.crew.connect(field.number(local), SMALL_BUFFER).await?;
        let joined = self.join(field, local, &mut peer, number % self.topics).await;
        let handle = joined.map_err(ConnectError::Join).inspect_err(|error| field.crew.failed(error))?;
        Ok((peer, handle))
    }

    async fn join(
        &self,
        field: &Field,
        local: usize,
        peer: &mut Peer,
        number: usize,
    ) -> Result<Handle, Ended> {
        self.came.borrow_mut().insert((peer.conn, number), field.nanos());
        let (handle, Members { list, .. }) = field.crew.join(peer, self.topic(field, number)).await?;
        let view = &mut self.views.borrow_mut()[local];
        view.at = Some((peer.conn, number));
        view.sees = list.iter().map(|member| member.conn).collect();
        Ok(handle)
    }

    /// A member is nowhere any more.
    fn leave(&self, field: &Field, local: usize) {
        let view = &mut self.views.borrow_mut()[local];
        view.sees.clear();
        if let Some(at) = view.at.take() {
            self.came.borrow_mut().remove(&at);
            self.went.borrow_mut().insert(at, field.nanos());
        }
    }

    /// What a member is told about the topic in which it is.
    fn told(&self, field: &Field, local: usize, conn: ConnId, is_there: bool) {
        let mut views = self.views.borrow_mut();
        let view = &mut views[local];
        let Some((_, number)) = view.at else { return };
        let (new, since, series) = if is_there {
            (view.sees.insert(conn), self.came.borrow(), Series::MemberNotice)
        } else {
            (view.sees.remove(&conn), self.went.borrow(), Series::LeaveNotice)
        };
        if new && let Some(since) = since.get(&(conn, number)) {
            field.recorder.record(series, field.nanos().saturating_sub(*since));
        }
    }

    /// Waits until everybody sees everybody else in its topic, and nobody more; gives how much is wrong.
    async fn settle(&self) -> u64 {
        let until = Instant::now() + SETTLE;
        loop {
            let wrong = self.wrong();
            if wrong == 0 || Instant::now() >= until {
                return wrong;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn wrong(&self) -> u64 {
        let views = self.views.borrow();
        let mut there: HashMap<usize, HashSet<ConnId>> = HashMap::new();
        for (conn, number) in views.iter().filter_map(|view| view.at) {
            there.entry(number).or_default().insert(conn);
        }
        let differences = views.iter().map(|view| match view.at {
            Some((conn, number)) => {
                let others = there.get(&number).into_iter().flatten().filter(|other| **other != conn);
                let unseen = others.filter(|other| !view.sees.contains(other)).count();
                let ghosts = view.sees.iter().filter(|seen| !there[&number].contains(seen)).count();
                (unseen + ghosts) as u64
            }
            // On its way.
            None => u64::from(view.busy.get()),
        });
        differences.sum()
    }

    fn busy(&self, local: usize, busy: bool) {
        self.views.borrow()[local].busy.set(busy);
    }
}

/// Hears about the others, and moves when it is told to.
async fn live(
    field: Rc<Field>,
    plaza: Rc<Plaza>,
    local: usize,
    mut peer: Peer,
    mut handle: Handle,
    mut orders: mpsc::Receiver<()>,
) {
    let mut random = StdRng::seed_from_u64(field.seed.wrapping_add(field.number(local) as u64));
    loop {
        let moved = tokio::select! {
            biased;
            ended = hear(&field, &plaza, local, &mut peer, handle) => Err(ended),
            order = orders.recv() => match order {
                None => return,
                Some(()) => {
                    plaza.busy(local, true);
                    let number = random.random_range(0..plaza.topics);
                    if random.random_bool(plaza.reconnect_share) {
                        plaza.leave(&field, local);
                        Ok(None)
                    } else {
                        go(&field, &plaza, local, &mut peer, handle, number).await.map(Some)
                    }
                }
            },
        };
        let ended = match moved {
            Ok(Some(new)) => {
                handle = new;
                plaza.busy(local, false);
                continue;
            }
            Ok(None) => None,
            Err(ended) => {
                plaza.leave(&field, local);
                field.crew.disconnected(&ended);
                Some(ended)
            }
        };
        plaza.busy(local, true);
        drop(peer);
        let number = random.random_range(0..plaza.topics);
        let again = field
            .come_back(Instant::now(), ended.as_ref(), async || plaza.enter(&field, local, number).await);
        let Some(back) = again.await else {
            // It stays away: because the run is over, or for a reason that has failed the run.
            return plaza.busy(local, false);
        };
        (peer, handle) = back;
        plaza.busy(local, false);
    }
}

/// Leaves the topic and joins another one.
async fn go(
    field: &Field,
    plaza: &Plaza,
    local: usize,
    peer: &mut Peer,
    handle: Handle,
    number: usize,
) -> Result<Handle, Ended> {
    plaza.leave(field, local);
    peer.send(&Frame::Leave { handle }).await?;
    field.recorder.add(Count::Left, 1);
    plaza.join(field, local, peer, number).await
}

/// Takes what is said about the topic, until the connection ends. Cancel safe.
async fn hear(field: &Field, plaza: &Plaza, local: usize, peer: &mut Peer, handle: Handle) -> Ended {
    loop {
        loop {
            match peer.inbox.event() {
                Ok(Some(Event::Other(frame))) => {
                    field.note_frame(&frame);
                    match frame {
                        // What is said about a topic that was left is of no interest.
                        Frame::PeerJoined { handle: of, member } if of == handle => {
                            plaza.told(field, local, member.conn, true);
                        }
                        Frame::PeerLeft { handle: of, conn, .. } if of == handle => {
                            plaza.told(field, local, conn, false);
                        }
                        _ => {}
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(ended) => return ended,
            }
        }
        if let Err(ended) = peer.fill().await {
            return ended;
        }
    }
}
