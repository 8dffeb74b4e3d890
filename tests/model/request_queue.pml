/* Park and wake: how a producer gets an instance to look at the queue, and how instances and callers hand it on.
 * C++: csrc/queue/doorbell.{h,cc}, csrc/sched/instance.cc, csrc/sched/model_queue.cc, csrc/model/model_version.cc (start_here),
 * csrc/engine/submitter.cc. Two producers that submit again and again, or stop; a queue for CAPACITY requests; two instances of
 * depth 1. Intake::push and the part of ModelQueue::pull under the token are one step each: intake.pml takes them apart, and
 * shows order and exactly-once there; here requests are only counted.
 *
 * -DSAFETY    the queue never holds more than CAPACITY; an instance never runs two batches; and when nothing moves any more,
 *             nothing waits: a lost wake is a thread that sleeps for ever
 * -DLIVENESS  `served`: any one request (`tagged`) that waits is taken, whatever the others do (weak fairness: a thread that can
 *             run does run)
 * -DNP        (and cc -DNP) nobody is busy for ever without anything being taken
 *
 * -DDEVICE=0  the device is done when start() returns (t_starting == this)    =1  another thread finishes the batch
 * -DCALLERS=0 the instances' threads pull, nobody else
 *          =1 producer 1 calls Submitter::infer: it may claim an idle instance and run one batch
 *          =2 and producer 0 runs cheap models at the end of its pass (ModelVersion::start_here)
 * -DCOMPANY=0 a batch is one request, run at once
 *          =1 a batch is two; one alone waits until it is due (max_queue_delay)
 * -DSTEPS=1   the queue's bell access by access (the own bells, which have one waiter each, never are)
 * -DHANG=1    a device may never be done: then nothing may wait while an instance is idle. (A run that is too cheap for a wake
 *             keeps what is left to itself for that long: left out.)
 *
 * Steps between which others may come in are the accesses to what threads share. Not modelled: memory orders (SPIN knows
 * sequential consistency only; ThreadSanitizer has the rest), spurious wakes and failures of a compare-and-swap (they only
 * make a thread look once more), the start of the instances' threads by the first ring (here a thread that was not scheduled
 * yet), the rate limiter's seats, expiry and cancellation, held answers, a refused request (its producer does not submit).
 */

#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef DEVICE
#define DEVICE 0
#endif
#ifndef CALLERS
#define CALLERS 0
#endif
#ifndef COMPANY
#define COMPANY 0
#endif

#ifndef STEPS
#define STEPS 0
#endif
#ifndef HANG
#define HANG 0
#endif
#ifndef CAPACITY
#define CAPACITY 2
#endif

#define WAITERS 2
#include "doorbell.pml"
#if STEPS
#define RING(door) ring(door)
#define WAIT(door, waiter, over) wait_on(door, waiter, over)
#else
#define RING(door) ring_at_once(door)
#define WAIT(door, waiter, over) wait_at_once(door, waiter, over)
#endif

#ifndef INSTANCES
#define INSTANCES 2
#endif
#define MAX_ROWS (1 + COMPANY)

byte in_intake;                            /* requests in intake_, 0: head_ == nullptr */
byte in_pending;                           /* in pending_, guarded by the pull token */
bool due;                                  /* the oldest in pending_ has waited long enough */
#define UNTIMED 0
#define TIMED 1                            /* wait_until of the oldest */
#define STALE 2                            /* wait_until of one that was taken meanwhile: passes some time */
byte timer[INSTANCES + 2];                 /* wait_until of the instances' threads, then of the producers when they hold a claim */

Doorbell bell;                             /* ModelQueue::bell; its waiters are the instances' threads */
Doorbell own[2];                    /* Instance::own_bell_ */
bool claimed[INSTANCES];
byte in_flight[INSTANCES];
#if HANG
bool false_for_ever;
#endif

#ifdef LIVENESS
byte ahead;                                /* of the tagged request, itself included; 0: not chosen yet, or taken */
bool chosen;
bool tagged;                               /* it was chosen and waits */
#endif

/* --- ModelQueue --------------------------------------------------------------------------------------------------------- */

/* Intake::push; adds to `owes` what it returns. */
inline push() {
  atomic {
    in_intake + in_pending < CAPACITY;                             /* admit */
    owes = owes || in_intake == 0;
    in_intake++;                                                   /* push: compare_exchange_weak */
#ifdef LIVENESS
    if
    :: !chosen -> chosen = true; tagged = true; ahead = in_intake + in_pending
    :: true
    fi
#endif
  }
}

/* ModelQueue::pull: sets `taken`, `left` and timer[alarm], the wait_until. */
inline pull(alarm) {
  d_step {
    in_pending = in_pending + in_intake; in_intake = 0;            /* take_intake: head_.exchange */
    timer[alarm] = UNTIMED;
    if
    :: in_pending >= MAX_ROWS -> taken = MAX_ROWS                  /* decide: a full batch */
    :: in_pending > 0 && in_pending < MAX_ROWS && due -> taken = in_pending /* decide: long enough */
    :: in_pending > 0 && in_pending < MAX_ROWS && !due ->
      taken = 0;
#if MUTANT != 7 /* nobody sets an alarm for those that wait for company */
      timer[alarm] = TIMED                                         /* decide: wait_until */
#endif
    :: in_pending == 0 -> taken = 0
    fi;
    in_pending = in_pending - taken;                               /* pull: pending_.remove, taken_.fetch_add */
    left = in_pending;
    if
    :: taken != 0 ->
      due = false;
      w = 0; do :: w < INSTANCES + 2 -> timer[w] = (timer[w] != UNTIMED -> STALE : UNTIMED); w++ :: else -> break od; w = 0;
#ifdef LIVENESS
      if
      :: tagged && ahead <= taken -> tagged = false; ahead = 0
      :: tagged && ahead > taken -> ahead = ahead - taken
      :: else
      fi
#endif
    :: else
    fi
  }
}

/* --- Instance ----------------------------------------------------------------------------------------------------------- */

/* Instance::start */
inline start(i) {
  assert(in_flight[i] == 0);                                       /* depth_ == 1 */
  in_flight[i] = 1;                                                /* start: in_flight_.fetch_add, backend_->start */
#if HANG && DEVICE == 0
  if
  :: true
  :: true -> false_for_ever                                        /* the device hangs, and this thread in it */
  fi;
#endif
#if DEVICE == 0
  in_flight[i] = 0                                                /* complete, t_starting == this: in_flight_.fetch_sub */
#endif
}

/* Instance::pull_one. comes_back: the caller pulls again by itself. */
inline pull_one(i, alarm, comes_back) {
  pull(alarm);
  if
  :: taken == 0 ->
#if MUTANT == 8 /* a caller that leaves does not have the clock watched */
    owes = false
#elif MUTANT == 9 /* rings for nothing */
    owes = true
#else
    owes = !(comes_back) && left != 0
#endif
  :: else ->
progress_taken:
    owes = left != 0;
    left = 0;
    if
    :: owes -> RING(bell); owes = false                            /* pull_one: ring; worth_a_wake() or not ... */
#if HANG == 0
    :: owes && (comes_back)                                        /* ... is any answer here */
#endif
    :: !owes
    fi;
#if MUTANT == 10 /* the ring is not passed on to those that are left */
    owes = false;
#endif
    start(i)
  fi;
  left = 0
}

#define NO_INSTANCE INSTANCES

/* Instance::try_claim */
inline try_claim(i) {
  atomic { got = !claimed[i]; claimed[i] = true }                  /* claimed_.exchange */
}

/* Instance::release_claim, and the ring that belongs to it when it is not the own thread's */
inline give_claim_back(i) {
  claimed[i] = false;                                              /* claimed_.store */
#if MUTANT == 11 /* gives the claim back without a ring */
  skip
#else
  ring_at_once(own[i])                                                  /* own_bell_.ring */
#endif
}

/* ModelVersion::claim_idle and Instance::try_claim_idle: sets `mine` */
inline claim_idle() {
  mine = 0;
  do
  :: mine == INSTANCES -> break
  :: mine < INSTANCES && (in_flight[mine] != 0 || claimed[mine]) -> mine++   /* two loads that only spare the exchange */
  :: mine < INSTANCES && in_flight[mine] == 0 && !claimed[mine] ->
    try_claim(mine);
    if
    :: !got -> mine++
    :: got ->
      got = false;
      if
      :: in_flight[mine] == 0 -> break                             /* try_claim_idle: in_flight() once more */
      :: else -> give_claim_back(mine); mine++
      fi
    fi
  od
}

proctype instance(byte self) {
  byte seen, w, taken, left;
  bool owes, room;
#if CALLERS
  bool got;
#endif

again: /* Instance::loop */
#if MUTANT != 12
  TICKET(bell, self);                                                 /* queue_.bell.ticket */
#endif
  TICKET(own[self], self);                                               /* own_bell_.ticket */
#if CALLERS /* else nobody ever claims somebody else's */
  try_claim(self);
  if
  :: !got ->
#if MUTANT != 13 /* woken for work that it may not pull, and keeps the ring: late, and lost when the device hangs */
    RING(bell);                                                    /* loop: pass it on */
#endif
    wait_at_once(own[self], self, false);
    goto again
  :: got -> got = false
  fi;
#endif
  owes = in_flight[self] != 0;                                        /* pull_until_full: has_room */
#if MUTANT == 14 /* woken at full depth, and keeps the ring: late, and lost when the device hangs */
  owes = false;
#endif
  do
  :: in_flight[self] == 0 ->                                          /* pull_until_full: has_room */
    pull_one(self, self, true);
    if
    :: taken == 0 -> break
    :: taken != 0 -> taken = 0
    fi
  :: in_flight[self] != 0 -> break
  od;
  if
  :: owes -> owes = false; RING(bell)                              /* pull_until_full: queue_.bell.ring */
  :: !owes
  fi;
  room = in_flight[self] == 0;                                        /* loop: has_room */
#if CALLERS
  claimed[self] = false;                                              /* loop: release_claim */
#endif
#if MUTANT == 12 /* the ticket is taken after the look */
  TICKET(bell, self);
#endif
  if
  :: room ->
    room = false;
    WAIT(bell, self, timer[self] == STALE || (timer[self] == TIMED && due));
    timer[self] = UNTIMED
  :: !room -> wait_at_once(own[self], self, false)
  fi;
  goto again
}

#if DEVICE
proctype device(byte self) { /* Instance::complete on a thread of the vendor's */
  byte seen, w;

  do
#if HANG
  :: break
#endif
  :: in_flight[self] != 0 ->
    in_flight[self] = 0;                                              /* complete: in_flight_.fetch_sub */
#if MUTANT == 15 /* finishes without a ring */
    skip
#else
    ring_at_once(own[self])                                                /* complete: own_bell_.ring */
#endif
  od
}
#endif

#if COMPANY
active proctype clock() {
  do
  :: in_pending > 0 && !due -> due = true
  od
}
#endif

/* --- Submitter ---------------------------------------------------------------------------------------------------------- */

/* Submitter::Impl::submit: admit and push. A refused request changes nothing that is modelled. */
inline submit() {
#if MUTANT == 4 /* rings before it pushes */
  in_intake + in_pending < CAPACITY;
  RING(bell);
  push();
  owes = false
#else
  push()
#endif
}

/* The end of Instance::run_claimed and run_claimed_until; `owes`: somebody has to look at what is left, or watch the clock. */
inline leave_instance() {
  give_claim_back(mine);
  mine = 0;
  if
  :: owes -> owes = false; RING(bell)                              /* queue_.bell.ring */
  :: !owes
  fi
}

proctype producer(byte p) { /* an I/O loop: several submits, then one flush */
  byte seen, w;
  bool owes;
#if CALLERS == 2
  byte taken, left, mine;
  bool got;
#endif

  do
  :: !owes -> break                                                /* it may stop at any time */
  :: submit()
  :: owes ->
#if CALLERS == 2 /* ModelVersion::start_here */
    if
    :: in_intake + in_pending == 0 -> owes = false                                /* start_here: nothing waits any more */
    :: owes = false; RING(bell)                                    /* start_here: not cheap */
    :: claim_idle();
      if
      :: mine == NO_INSTANCE ->
        mine = 0;
#if MUTANT != 17 /* takes it that who is busy now will look again */
        RING(bell);                                                /* flush: queue().ring */
#endif
        owes = false
      :: mine != NO_INSTANCE -> /* Instance::run_claimed_until */
        owes = false;
        do
        :: in_flight[mine] == 0 ->                                 /* run_claimed_until: has_room */
          pull_one(mine, INSTANCES + p, true);
          if
          :: taken == 0 -> break
          :: taken != 0 -> taken = 0
          :: taken != 0 && owes -> taken = 0; break                /* run_claimed_until: the time is up */
          fi
        :: in_flight[mine] != 0 -> break
        od;
        owes = owes || timer[INSTANCES + p] != UNTIMED;
        timer[INSTANCES + p] = UNTIMED;
        leave_instance()
      fi
    fi
#else
    owes = false; RING(bell)                                       /* flush: queue().ring */
#endif
  od
}

#if CALLERS
proctype caller(byte p) { /* Submitter::infer, by one caller after the other: nobody waits for the answer here */
  byte seen, w, taken, left, mine;
  bool owes, got;

  do
  :: break
  :: submit();
    claim_idle();
    if
    :: mine != NO_INSTANCE -> /* Instance::run_claimed */
      owes = false;
      pull_one(mine, INSTANCES + p, false);
      taken = 0;
      timer[INSTANCES + p] = UNTIMED;
      leave_instance()
    :: mine == NO_INSTANCE ->
      mine = 0;
      if
      :: owes -> owes = false; RING(bell)                          /* infer: queue().ring */
      :: !owes
      fi
    fi
  od
}
#endif

/* --- claims ------------------------------------------------------------------------------------------------------------- */

init {
  d_step { own[0].rung[1] = true; own[1].rung[0] = true }; /* they have one waiter each: fewer states */
  atomic {
    run producer(0); run instance(0);
#if INSTANCES == 2
    run instance(1);
#endif
#if CALLERS
    run caller(1);
#else
    run producer(1);
#endif
#if DEVICE
    run device(0);
#if INSTANCES == 2
    run device(1);
#endif
#endif
  }
}

#ifdef SAFETY
active proctype quiescence() { /* every thread sleeps, or has nothing to do */
#if HANG
  timeout -> assert(in_intake + in_pending == 0 || (in_flight[0] != 0 && in_flight[1] != 0))
#else
  timeout -> assert(in_intake + in_pending == 0)
#endif
}
#endif

#ifdef LIVENESS
ltl served { [](tagged -> <>!tagged) }
#endif
