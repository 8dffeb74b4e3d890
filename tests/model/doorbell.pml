/* csrc/queue/doorbell.{h,cc}: park and wake on a futex.
 *
 * The epoch is only ever compared with a ticket, so it is modelled per waiter as "rung since its ticket": exact, and without
 * the wrap of a small counter. No wait returns spuriously, because that would hide a lost wake. FUTEX_WAKE picks any sleeper:
 * the kernel's order is one of those. Every line that ends a step names the C++ that it stands for.
 *
 * Mutants 1 to 3 are faults in here (see request_queue.pml for the rest).
 */

typedef Doorbell {
  bool rung[WAITERS];   /* epoch_ != the waiter's ticket */
  byte sleepers;        /* sleepers_ */
  bool parked[WAITERS]; /* the kernel's queue of the futex */
};

/* Doorbell::ticket: the load of epoch_ */
#define TICKET(bell, me) bell.rung[me] = false

/* Doorbell::ring */
inline ring(bell) {
#if MUTANT == 1 /* looks at the sleepers before it raises the epoch */
  seen = bell.sleepers;
  d_step { w = 0; do :: w < WAITERS -> bell.rung[w] = true; w++ :: else -> break od; w = 0 };
#else
  d_step { w = 0; do :: w < WAITERS -> bell.rung[w] = true; w++ :: else -> break od; w = 0 }; /* ring: epoch_.fetch_add */
  seen = bell.sleepers;                                                           /* ring: sleepers_.load */
#endif
  if
  :: seen != 0 -> seen = 0; futex_wake(bell)                                      /* wake: FUTEX_WAKE, 1 */
  :: else
  fi
}

inline futex_wake(bell) {
  atomic {
    if
    :: bell.parked[0] -> bell.parked[0] = false
#if WAITERS > 1
    :: bell.parked[1] -> bell.parked[1] = false
#endif
    :: else
    fi
  }
}

/* Doorbell::wait. `rings_by_itself`: the time limit has passed. */
inline wait_on(bell, me, rings_by_itself) {
#if MUTANT == 2 /* counts itself only once it sleeps */
  atomic { if :: !bell.rung[me] -> bell.parked[me] = true :: else fi };
  bell.sleepers++;
#else
  bell.sleepers++;                                                                /* wait: sleepers_.fetch_add */
#if MUTANT == 3 /* sleeps without comparing the epoch */
  bell.parked[me] = true;
#else
  atomic { if :: !bell.rung[me] -> bell.parked[me] = true :: else fi };           /* FUTEX_WAIT_BITSET: compare, park */
#endif
#endif
end_parked:
  atomic { !bell.parked[me] || (rings_by_itself) -> bell.parked[me] = false };    /* woken, or the time limit */
  bell.sleepers--                                                                 /* wait: sleepers_.fetch_sub */
}
