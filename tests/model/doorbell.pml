/* csrc/queue/doorbell.{h,cc}: park and wake on a futex.
 *
 * The epoch is only ever compared with a ticket, so it is modelled per waiter as "rung since its ticket": exact, and without
 * the wrap of a small counter. No wait returns spuriously, because that would hide a lost wake. FUTEX_WAKE picks any sleeper:
 * the kernel's order is one of those.
 *
 * ring() and wait_on() take every access apart. ring_at_once() and wait_at_once() are the same in one step each, for bells
 * that have one waiter or where another run of the model has shown that the steps do not matter: it keeps the states few.
 */

typedef Doorbell {
  bool rung[WAITERS];   /* epoch_ != the waiter's ticket */
  bool parked[WAITERS]; /* the kernel's queue of the futex */
  byte sleepers;        /* sleepers_ */
};

/* Doorbell::ticket: the load of epoch_ */
#define TICKET(door, waiter) door.rung[waiter] = false

inline raise_epoch(door) {
  d_step {
    door.rung[0] = true;
#if WAITERS > 1
    door.rung[1] = true
#endif
  }
}

inline futex_wake(door) { /* FUTEX_WAKE, 1 */
  atomic {
    if
    :: door.parked[0] -> door.parked[0] = false
#if WAITERS > 1
    :: door.parked[1] -> door.parked[1] = false
#endif
    :: else
    fi
  }
}

/* Doorbell::ring. `seen`: a local of the caller, 0 before and after. */
inline ring(door) {
#if MUTANT == 1 /* looks at the sleepers before it raises the epoch */
  seen = door.sleepers;
  raise_epoch(door);
#else
  raise_epoch(door);                                                 /* ring: epoch_.fetch_add */
  seen = door.sleepers;                                              /* ring: sleepers_.load */
#endif
  if
  :: seen != 0 -> atomic { seen = 0; futex_wake(door) }              /* ring: wake */
  :: seen == 0
  fi
}

/* Doorbell::wait. `over`: the time limit has passed. */
inline wait_on(door, waiter, over) {
#if MUTANT == 2 /* counts itself only once it sleeps */
  atomic { if :: !door.rung[waiter] -> door.parked[waiter] = true :: else fi };
  door.sleepers++;
#elif MUTANT == 3 /* sleeps without comparing the epoch */
  door.sleepers++;
  door.parked[waiter] = true;
#else
  door.sleepers++;                                                   /* wait: sleepers_.fetch_add */
  atomic { if :: !door.rung[waiter] -> door.parked[waiter] = true :: else fi }; /* FUTEX_WAIT_BITSET: compare and park */
#endif
  atomic { !door.parked[waiter] || (over) -> door.parked[waiter] = false }; /* ... woken, or the time limit */
  door.sleepers--                                                    /* wait: sleepers_.fetch_sub */
}

inline ring_at_once(door) {
  atomic { raise_epoch(door); futex_wake(door) }
}

inline wait_at_once(door, waiter, over) {
  atomic { if :: !door.rung[waiter] -> door.parked[waiter] = true :: else fi };
  atomic { !door.parked[waiter] || (over) -> door.parked[waiter] = false }
}
