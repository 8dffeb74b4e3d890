/* The lock-free queue and what is done with it under the pull token, access by access.
 * C++: csrc/queue/intake.h (push, take_all), csrc/sched/model_queue.cc (admit, push, pull). Two producers with two requests each
 * that they push again as soon as they are taken, or stop; two consumers that pull all the time, one request at a time; the
 * queue is for CAPACITY requests.
 *
 * -DSAFETY    every request is taken once, whole and in its producer's order; never more than CAPACITY wait; when the producers
 *             have stopped and everything was taken, queue and counters are empty
 * -DLIVENESS  `served`: every request that waits is taken (weak fairness)
 *
 * Not modelled: memory orders (SPIN knows sequential consistency only; ThreadSanitizer has the rest), spurious failures of the
 * compare-and-swap (one more turn of the loop).
 */

#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef CAPACITY
#define CAPACITY 2
#endif

#define REQUESTS 4
#define FREE 0  /* its producer's */
#define PUSHED 2 /* admitted, on its way in: a push is lock-free, not wait-free, so others may overtake it for ever */
#define WAITS 1 /* in the intake, in the pending set, or on the way between them */

byte state[REQUESTS + 1];              /* 1, 2: producer 0's; 3, 4: producer 1's; 0 is nullptr */
bit next_of[2];                        /* per producer: which of its two is to be taken next */
byte head;                             /* Intake::head_ */
byte next_in_intake[REQUESTS + 1];     /* IntakeNode::next_in_intake */
byte waiting;                          /* submitted_ - taken_ */
bool token;                            /* pull_token_ */
chan pending = [REQUESTS] of { byte }; /* pending_, under the token */
byte pulls;                            /* consumers between lock and unlock */

#define PRODUCER_OF(request) ((request - 1) / 2)
#define INDEX_OF(request) ((request - 1) % 2)
#define WAITING ((state[1] == WAITS) + (state[2] == WAITS) + (state[3] == WAITS) + (state[4] == WAITS))

proctype producer(byte p) {
  byte request, top;
  bit mine;
  bool admitted;

  do
  :: break
  :: state[2 * p + 1 + mine] == FREE ->
    atomic { admitted = waiting < CAPACITY; waiting++ };      /* admit: submitted_.fetch_add; taken_.load */
    if
    :: !admitted ->
      waiting--                                               /* admit: submitted_.fetch_sub */
    :: admitted ->
      admitted = false;
      request = 2 * p + 1 + mine;
      state[request] = PUSHED;
      top = head;                                             /* push: head_.load */
      do
      :: next_in_intake[request] = top;                       /* push: oldest->next_in_intake = head */
        atomic {
#if MUTANT == 1 /* a store where the compare-and-swap belongs */
          head = request; state[request] = WAITS; break
#else
          if
          :: head == top -> head = request; state[request] = WAITS; assert(WAITING <= CAPACITY); break /* push: compare_exchange_weak succeeds */
          :: else -> top = head                               /* push: it fails and loads */
          fi
#endif
        }
      od;
      top = 0;
      request = 0;
      mine = 1 - mine
    fi
  od
}

proctype consumer() {
  byte list, oldest, request;

again:
#if MUTANT == 2 /* without the token */
  skip;
#else
  atomic { !token -> token = true };                          /* pull: lock_guard */
#endif
  pulls++;
#if MUTANT != 2
  assert(pulls == 1);
#endif
  if
  :: head == 0                                                /* take_all: head_.load */
  :: else ->
#if MUTANT == 3 /* a load and a store where the exchange belongs */
    list = head;
    head = 0
#else
    atomic { list = head; head = 0 }                          /* take_all: head_.exchange */
#endif
  fi;
#if MUTANT != 4 /* forgets to reverse */
  do
  :: list != 0 ->
    request = next_in_intake[list];                           /* take_all: next = ... */
    next_in_intake[list] = oldest;                            /* take_all: ... = oldest_first */
    oldest = list; list = request
  :: else -> break
  od;
  list = oldest;
  oldest = 0;
  request = 0;
#endif
  do
  :: list != 0 ->
    assert(state[list] == WAITS && nfull(pending));           /* nothing twice */
    request = next_in_intake[list];                           /* take_intake: next = ... */
#if MUTANT == 5 /* reads the link after the request is its producer's again */
    pending!list;
    if :: len(pending) == 1 -> pending?eval(list); state[list] = FREE; waiting-- :: else fi;
    request = next_in_intake[list];
#else
    pending!list;                                             /* take_intake: pending_.add */
#endif
    d_step { next_in_intake[list] = 0; list = request; request = 0 }
  :: else -> break
  od;
  if
  :: pending?request ->                                       /* pull: pending_.first, remove */
    d_step {
      assert(state[request] == WAITS);                        /* taken once */
      assert(next_of[PRODUCER_OF(request)] == INDEX_OF(request)); /* in order */
      next_of[PRODUCER_OF(request)] = 1 - next_of[PRODUCER_OF(request)];
      state[request] = FREE;                                  /* batch.add; it runs, is answered, is its producer's again */
      request = 0
    };
#if MUTANT != 6 /* forgets to count it as taken: the queue fills up for ever */
    waiting--                                                 /* pull: taken_.fetch_add */
#else
    skip
#endif
  :: empty(pending)
  fi;
  pulls--;
  token = false;                                              /* pull: unlock */
#ifdef SAFETY
  /* Asleep until there is something: how it is woken is request_queue.pml's. */
  head != 0 || nempty(pending);
#endif
  goto again
}

init {
  atomic { run producer(0); run producer(1); run consumer(); run consumer() }
}

#ifdef SAFETY
active proctype quiescence() {
  timeout -> assert(WAITING == 0 && waiting == 0 && head == 0 && empty(pending))
}
#endif

#ifdef LIVENESS
ltl served {
  []<>(state[1] != WAITS) && []<>(state[2] != WAITS) && []<>(state[3] != WAITS) && []<>(state[4] != WAITS)
}
#endif
