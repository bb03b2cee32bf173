//! The way between one process and the store: how long it takes and what goes wrong on it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_seams::Rand;

/// Chances, each in 0–1, drawn per request.
#[derive(Clone, Debug, PartialEq)]
pub struct Weather {
    /// Longest time of one way on a good day.
    pub latency: Duration,
    /// A way that takes up to a hundred times as long.
    pub slow: f64,
    /// Refused before it reaches the store.
    pub fail_before: f64,
    /// Refused for good: the keys are wrong for a moment.
    pub deny: f64,
    /// Applied, and the answer is lost.
    pub lose_answer: f64,
    /// The sender gives up at once; the write is applied up to `LATEST` later.
    pub late: f64,
    /// Applied twice, the second time up to `LATEST` later.
    pub twice: f64,
    /// An answer with a damaged bit.
    pub flip: f64,
    /// An answer that is cut short but says it is whole.
    pub cut: f64,
    /// Nothing gets through.
    pub down: bool,
}

/// How late a delayed write can be.
pub const LATEST: Duration = Duration::from_secs(30 * 24 * 3_600);

impl Weather {
    pub fn calm() -> Self {
        Self {
            latency: Duration::from_millis(10),
            slow: 0.0,
            fail_before: 0.0,
            deny: 0.0,
            lose_answer: 0.0,
            late: 0.0,
            twice: 0.0,
            flip: 0.0,
            cut: 0.0,
            down: false,
        }
    }

    /// Anything from a good day to a bad one.
    pub fn random(rand: &Rand) -> Self {
        let bad = [0.0, 0.02, 0.1, 0.3][rand.below(4) as usize];
        let chance = |most: f64| {
            if rand.below(2) == 0 {
                0.0
            } else {
                rand.unit() * most
            }
        };
        Self {
            latency: Duration::from_millis(1 + rand.below(40)),
            slow: chance(bad / 4.0),
            fail_before: chance(bad),
            deny: chance(bad / 2.0),
            lose_answer: chance(bad),
            late: chance(bad),
            twice: chance(bad),
            flip: 0.0,
            cut: 0.0,
            down: false,
        }
    }
}

/// How long a connection that says nothing stays open.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);

/// What becomes of one request.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub there: Duration,
    pub back: Duration,
    pub end: End,
    /// Applied once more, this long after.
    pub again: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Answered,
    Damaged {
        flip: bool,
    },
    /// Never applied.
    Refused {
        silent: bool,
    },
    /// Never applied, and the answer says so.
    Denied,
    /// Applied, and nobody learns of it.
    Lost {
        silent: bool,
    },
    /// Nobody learns of it, and it is applied this long after.
    Late(Duration),
}

/// What a scenario does to one request.
#[derive(Clone, Copy, Debug)]
pub enum Blow {
    /// Applied; the answer is lost.
    LoseAnswer,
    /// Refused before it reaches the store.
    Refuse,
    /// The sender is told "timed out"; the store gets it this much later.
    Deliver(Duration),
    /// Takes this long to get there, and the sender is left waiting.
    Slow(Duration),
}

/// Waits for the next request whose text holds all of the words.
struct Planned {
    words: Vec<String>,
    blow: Blow,
}

/// One process's line.  Clones are the same line.
#[derive(Clone)]
pub struct Line {
    pub(crate) name: Arc<str>,
    weather: Arc<Mutex<Weather>>,
    blows: Arc<Mutex<Vec<Planned>>>,
    rand: Rand,
}

impl Line {
    pub fn new(name: &str, rand: &Rand) -> Self {
        let weather = Arc::new(Mutex::new(Weather::calm()));
        Self {
            name: name.into(),
            weather,
            blows: Arc::default(),
            rand: Rand::from_seed(rand.u64()),
        }
    }

    /// Hits the next request whose text (`put c/…/wal/…`) holds every word of `words`.
    pub fn once(&self, words: &str, blow: Blow) {
        let words = words.split(' ').map(str::to_owned).collect();
        self.blows.lock().push(Planned { words, blow });
    }

    /// Blows that nothing has run into yet.
    pub fn blows_left(&self) -> usize {
        self.blows.lock().len()
    }

    pub fn set(&self, weather: Weather) {
        *self.weather.lock() = weather;
    }

    pub fn set_down(&self, down: bool) {
        self.weather.lock().down = down;
    }

    pub fn is_down(&self) -> bool {
        self.weather.lock().down
    }

    pub(crate) fn draw(&self, text: &str, is_write: bool) -> Fate {
        let weather = self.weather.lock().clone();
        if let Some(blow) = self.blow_for(text) {
            return self.struck(&weather, blow);
        }
        let (there, back) = (self.way(&weather), self.way(&weather));
        if weather.down {
            let silent = self.hit(0.5);
            return Fate {
                there,
                back,
                end: End::Refused { silent },
                again: None,
            };
        }
        let end = if self.hit(weather.fail_before) {
            End::Refused {
                silent: self.hit(0.2),
            }
        } else if self.hit(weather.deny) {
            End::Denied
        } else if self.hit(weather.lose_answer) {
            End::Lost {
                silent: self.hit(0.5),
            }
        } else if is_write && self.hit(weather.late) {
            End::Late(self.later())
        } else if !is_write && self.hit(weather.flip) {
            End::Damaged { flip: true }
        } else if !is_write && self.hit(weather.cut) {
            End::Damaged { flip: false }
        } else {
            End::Answered
        };
        // What is denied is denied to every copy: that answer must be worth its word.
        let twice = is_write && end != End::Denied && self.hit(weather.twice);
        let again = twice.then(|| self.later());
        Fate {
            there,
            back,
            end,
            again,
        }
    }

    fn blow_for(&self, text: &str) -> Option<Blow> {
        let mut blows = self.blows.lock();
        let hit = |planned: &Planned| planned.words.iter().all(|word| text.contains(word.as_str()));
        let at = blows.iter().position(hit)?;
        Some(blows.remove(at).blow)
    }

    fn struck(&self, weather: &Weather, blow: Blow) -> Fate {
        let (there, back) = (self.way(weather), self.way(weather));
        let (there, end) = match blow {
            Blow::LoseAnswer => (there, End::Lost { silent: false }),
            Blow::Refuse => (there, End::Refused { silent: false }),
            Blow::Deliver(later) => (there, End::Late(later)),
            Blow::Slow(long) => (long, End::Answered),
        };
        Fate {
            there,
            back,
            end,
            again: None,
        }
    }

    fn way(&self, weather: &Weather) -> Duration {
        let slow = if self.hit(weather.slow) { 100.0 } else { 1.0 };
        weather.latency.mul_f64(self.rand.unit() * slow)
    }

    /// Mostly seconds, sometimes weeks: every scale is drawn alike.
    fn later(&self) -> Duration {
        let scale = (LATEST.as_millis() as f64).ln() * self.rand.unit();
        Duration::from_millis(scale.exp() as u64)
    }

    fn hit(&self, chance: f64) -> bool {
        chance > 0.0 && self.rand.unit() < chance
    }
}
