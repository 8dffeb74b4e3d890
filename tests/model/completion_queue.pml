/* Where answers wait for their owner. C++: csrc/queue/completion_queue.h, csrc/batch/completion_queue.cc; the owner with an eventfd
 * is csrc/frontend/io_loop.cc (finish_pass), the one with a futex Submitter::infer. Two deliverers with two responses each that they
 * deliver one by one or as a chain, again as soon as they were taken, or stop; one owner. The intake's push and take are one step
 * each (intake.pml takes them apart).
 *
 * -DSAFETY    each response is taken once, in its deliverer's order; when nothing moves any more, nothing waits
 * -DLIVENESS  `served`: every response that was delivered is taken (weak fairness)
 * -DNP        (and cc -DNP) the owner is not busy for ever without taking anything
 * -DDESTROY   with -DSAFETY: each deliverer delivers its two, the owner takes them and destroys the queue: nobody touches it later
 *
 * -DFUTEX=0   eventfd in a poller: keep_awake, may_sleep, wake_self     =1  wait()
 *
 * Not modelled: memory orders (SPIN knows sequential consistency only; ThreadSanitizer has the rest).
 */

#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef FUTEX
#define FUTEX 0
#endif

#define WAITERS 1
#include "doorbell.pml"

#define RESPONSES 4
#define FREE 0
#define WAITS 1
#define TAKEN 2
#define ROUNDS 2 /* kMostRounds */

byte state[RESPONSES + 1];           /* 1, 2: deliverer 0's; 3, 4: deliverer 1's */
bit next_of[2];
chan ready = [RESPONSES] of { byte }; /* ready_, the intake */
byte event_fd;                       /* its counter; readable: != 0 */
byte not_cleared;                    /* writes_ - cleared_ */
bool owner_looks;                    /* owner_looks_ */
Doorbell bell;                       /* bell_ */
bool destroyed;
#ifdef DESTROY
byte takes;                          /* takes_ */
byte wakes;                          /* wakes_ */
byte taken;
#define COUNT_WAKE d_step { TOUCH; wakes++ }
#define COUNT_TAKE takes++
#else
#define COUNT_WAKE skip
#define COUNT_TAKE skip
#endif
bool other;                          /* another descriptor of the poller is ready */

#define INDEX_OF(response) ((response - 1) % 2)
#define DELIVERER_OF(response) ((response - 1) / 2)
#define TOUCH assert(!destroyed)
#define FIRST (2 * d + 1)

/* CompletionQueue::wake_self */
inline wake_self() {
  d_step { TOUCH; not_cleared++ };          /* wake_self: writes_.fetch_add */
  d_step { TOUCH; event_fd++ }                                /* wake_self: write */
}

proctype deliverer(byte d) {
  byte seen;
  bit mine;
  bool was_empty, looks;
#ifdef DESTROY
  byte rest = 2;
#define MORE (rest != 0)
#define MORE_THAN_ONE (rest == 2)
#define PUSH state[FIRST + mine] = WAITS; ready!FIRST + mine; mine = 1 - mine; rest--
#else
#define MORE true
#define MORE_THAN_ONE true
#define PUSH state[FIRST + mine] = WAITS; ready!FIRST + mine; mine = 1 - mine
#endif

  do
#ifdef DESTROY
  :: rest == 0 -> break
#else
  :: break
#endif
  :: MORE && state[FIRST + mine] == FREE ->
#if MUTANT == 4 /* reads whether the owner looks before the push */
    looks = owner_looks;
#endif
    if
    :: d_step { TOUCH; was_empty = empty(ready); PUSH }            /* deliver_chain: push_chain, of one */
    :: d_step {                                                    /* deliver_chain: push_chain, of two */
        MORE_THAN_ONE && state[FIRST] == FREE && state[FIRST + 1] == FREE -> TOUCH; was_empty = empty(ready); PUSH; PUSH
      }
    fi;
    if
#if MUTANT == 5 /* counts everybody's wake: the destructor waits for the wrong number */
    :: !was_empty -> COUNT_WAKE
#else
    :: !was_empty
#endif
    :: was_empty ->
      was_empty = false;
#if MUTANT == 6 /* counts its wake before it is through with it */
      COUNT_WAKE;
#endif
#if FUTEX
      d_step { TOUCH; bell.rung[0] = true };                       /* deliver_chain: bell_.ring: epoch_.fetch_add */
      d_step { TOUCH; seen = bell.sleepers };                      /* ring: sleepers_.load */
      if
      :: seen != 0 -> d_step { TOUCH; seen = 0; bell.parked[0] = false } /* ring: wake */
      :: seen == 0
      fi;
#else
#if MUTANT != 4
      d_step { TOUCH; looks = owner_looks };                       /* deliver_chain: owner_looks_.load */
#endif
      if
      :: looks
      :: !looks -> wake_self()                                     /* deliver_chain: wake_self */
      fi;
      looks = false;
#endif
#if MUTANT == 6
      skip
#else
      COUNT_WAKE                /* deliver_chain: wakes_.fetch_add */
#endif
    fi
  od
}

inline take_ready() {
  d_step {                                                         /* take_all: ready_.take_all */
    took = nempty(ready);
    if :: took -> COUNT_TAKE :: else fi;
    do
    :: ready?each ->
      assert(state[each] == WAITS);                                /* taken once */
      assert(next_of[DELIVERER_OF(each)] == INDEX_OF(each));       /* in order */
      next_of[DELIVERER_OF(each)] = 1 - next_of[DELIVERER_OF(each)];
#ifdef DESTROY
      state[each] = TAKEN; taken++
#else
      state[each] = FREE
#endif
    :: empty(ready) -> break
    od;
    each = 0
  }
}

/* CompletionQueue::take_all; sets `took`. */
inline take_all() {
#if FUTEX == 0
  before = not_cleared;                                             /* take_all: writes_.load */
  if
  :: before != 0 ->
#if MUTANT == 8 /* believes that the read has seen every write that was begun */
    d_step { event_fd = 0; not_cleared = 0 }
#else
    d_step { not_cleared = not_cleared - event_fd; event_fd = 0 }  /* take_all: read, cleared_ += through */
#endif
  :: before == 0
  fi;
  before = 0;
#endif
  take_ready()
}


/* CompletionQueue::~CompletionQueue */
inline destroy() {
#ifdef DESTROY
#if MUTANT != 12 /* does not wait for those who still wake it */
  wakes == takes;                                                  /* ~CompletionQueue: wakes_.load */
#endif
  destroyed = true
#else
  skip
#endif
}

#if FUTEX == 0
proctype owner() { /* IoThread::loop, IoLoop::begin_pass and finish_pass */
  byte rounds, before, each;
  bool took;

  do
  :: event_fd != 0 || other ->                                     /* epoll_wait */
    other = false;
    owner_looks = true;                                            /* begin_pass: keep_awake */
    do
    :: rounds < ROUNDS ->
      rounds++;
      take_all();                                                  /* finish_pass: take_responses */
      if
      :: took ->
progress_took:
        owner_looks = true                                         /* finish_pass: keep_awake */
      :: !took ->
#if MUTANT == 9 /* looks whether something came before it asks to be woken */
        if
        :: empty(ready) -> owner_looks = false; break
        :: nempty(ready)
        fi
#else
        owner_looks = false;                                       /* may_sleep: owner_looks_.store */
        if
        :: empty(ready) -> break                                   /* may_sleep: ready_.empty */
        :: nempty(ready) -> owner_looks = true                     /* finish_pass: keep_awake */
        fi
#endif
      fi
    :: rounds == ROUNDS ->
      owner_looks = false;                                         /* finish_pass: may_sleep, after the last round */
#if MUTANT != 10 /* sleeps although its rounds ended with something to do */
      if
      :: nempty(ready) || took -> wake_self()                      /* finish_pass: wake_self; `took`: there is output to write */
      :: empty(ready) && !took
      fi;
#endif
      break
    od;
    took = false;
    rounds = 0;
#ifdef DESTROY
    if :: taken == RESPONSES -> goto destructor :: else fi
#endif
  od;
destructor:
  destroy()
}

#ifndef NP
active proctype sockets() { /* other reasons for a pass, until there are no more */
  do
  :: !other -> other = true
  :: break
  od
}
#endif
#else
proctype owner() { /* CompletionQueue::wait, again and again */
  byte each;
  bool took;

again:
#if MUTANT != 11 /* the ticket is taken after the look */
  TICKET(bell, 0);                                                 /* wait: bell_.ticket */
#endif
  take_all();
#if MUTANT == 11
  TICKET(bell, 0);
#endif
  if
  :: took ->
progress_took:
    took = false
  :: !took -> wait_on(bell, 0, false)
  fi;
#ifdef DESTROY
  if :: taken == RESPONSES -> goto destructor :: else fi;
#endif
  goto again;
destructor:
  destroy()
}
#endif

init { atomic { run deliverer(0); run deliverer(1); run owner() } }

#ifdef SAFETY
active proctype quiescence() {
#ifdef DESTROY
  timeout -> assert(destroyed)
#else
  timeout -> assert(empty(ready))
#endif
}
#endif

#ifdef LIVENESS
ltl served {
  []<>(state[1] != WAITS) && []<>(state[2] != WAITS) && []<>(state[3] != WAITS) && []<>(state[4] != WAITS)
}
#endif
