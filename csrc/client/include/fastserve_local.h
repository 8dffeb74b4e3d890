/* fastserve's local transport from C: inference in another process of this machine, tensors in shared memory, no copies.
 *
 *   fsl_connection* server;
 *   const fsl_model* model;
 *   fsl_slot* slot;
 *   if (fsl_connect("/run/fastserve.sock", NULL, &server) != FSL_OK) ... fsl_connect_error() ...
 *   if (fsl_open(server, "digits", NULL, &model) != FSL_OK) ... fsl_error(server) ...
 *   fsl_slot_create(server, model, 1, &slot);                     a place for one row
 *   memcpy(fsl_slot_input(slot, 0, NULL), pixels, bytes);
 *   if (fsl_run(server, slot, 100000) == FSL_OK) scores = fsl_slot_output(slot, 0, &tensor);
 *   fsl_slot_release(server, slot);
 *   fsl_close(server);
 *
 * Several at once: fsl_submit each slot, then fsl_wait and fsl_next until all are answered. Link libfastserve_local.a, the C++
 * runtime and threads: cc main.c -lfastserve_local -lstdc++ -lpthread
 *
 * Threads: a connection and everything that came from it belong to one thread at a time. Connections are independent of one
 * another. After fork(2) the child must not touch the parent's.
 * Memory: handles are valid until what they came from is closed or released; texts until the next call on their connection.
 * What a slot's memory holds is the program's while the slot is not in flight, and the server's while it is.
 */
#ifndef FASTSERVE_LOCAL_H
#define FASTSERVE_LOCAL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Numbered as gRPC's status codes; more may come. */
typedef enum fsl_code {
  FSL_OK = 0,
  FSL_CANCELLED = 1,
  FSL_INVALID_ARGUMENT = 3,
  FSL_DEADLINE_EXCEEDED = 4,
  FSL_NOT_FOUND = 5,
  FSL_PERMISSION_DENIED = 7,
  FSL_RESOURCE_EXHAUSTED = 8,
  FSL_FAILED_PRECONDITION = 9,
  FSL_ABORTED = 10, /* fsl_wait: a signal came */
  FSL_UNIMPLEMENTED = 12,
  FSL_INTERNAL = 13,
  FSL_UNAVAILABLE =
      14, /* the server is gone: close and connect again; or it is overloaded: fsl_gone() tells */
  FSL_DATA_LOSS = 15
} fsl_code;

/* As in the Open Inference Protocol. FSL_BYTES: each element is a 4-byte little-endian length and so many bytes. */
typedef enum fsl_dtype {
  FSL_BOOL,
  FSL_UINT8,
  FSL_UINT16,
  FSL_UINT32,
  FSL_UINT64,
  FSL_INT8,
  FSL_INT16,
  FSL_INT32,
  FSL_INT64,
  FSL_FP16,
  FSL_BF16,
  FSL_FP32,
  FSL_FP64,
  FSL_BYTES
} fsl_dtype;

#define FSL_MAX_RANK 16

typedef struct fsl_connection fsl_connection;
typedef struct fsl_model fsl_model;
typedef struct fsl_slot fsl_slot;

typedef struct fsl_options {
  uint32_t cells;      /* requests in flight, a power of two; 0: 128 */
  uint32_t cell_bytes; /* a power of two from 256; 0: 1024. Larger for models with many tensors */
  uint64_t timeout_us; /* of connecting and of other control messages; 0: 5 s */
} fsl_options;

typedef struct fsl_tensor {
  const char* name;
  fsl_dtype dtype;
  uint32_t rank;
  int64_t shape[FSL_MAX_RANK]; /* of a model's: -1 = any */
  uint64_t bytes;              /* of a model's: 0 */
} fsl_tensor;

typedef enum fsl_parameter_kind {
  FSL_BOOL_VALUE,
  FSL_INT_VALUE,
  FSL_UINT_VALUE,
  FSL_DOUBLE_VALUE,
  FSL_TEXT_VALUE
} fsl_parameter_kind;

/* Of a request, for the model, or of its answer. */
typedef struct fsl_parameter {
  const char* name;
  fsl_parameter_kind kind;
  union {
    int flag;
    int64_t integer;
    uint64_t natural;
    double number;
    const char* text;
  } value;
} fsl_parameter;

/* One tensor of a slot: which of the model's, the shape (inputs), and the most bytes that it will have. */
typedef struct fsl_plan {
  uint32_t index;
  uint32_t rank;
  int64_t shape[FSL_MAX_RANK];
  uint64_t bytes; /* 0: as dtype and shape say (inputs that are not FSL_BYTES) */
} fsl_plan;

/* `options` may be NULL. On failure *connection is NULL and fsl_connect_error() says why (of this thread). */
fsl_code fsl_connect(const char* path, const fsl_options* options, fsl_connection** connection);
/* Over a connected SOCK_SEQPACKET socket, which the connection owns from here on. */
fsl_code fsl_connect_fd(int descriptor, const fsl_options* options, fsl_connection** connection);
const char* fsl_connect_error(void);
/* Cancels what is in flight; models and slots are gone. NULL: nothing. */
void fsl_close(fsl_connection* connection);
/* Of the last call that failed. */
const char* fsl_error(const fsl_connection* connection);
/* Whether the server is gone for good. */
int fsl_gone(const fsl_connection* connection);

/* `version` NULL or "": as the server chooses. Asks the server. */
fsl_code fsl_open(fsl_connection* connection, const char* name, const char* version, const fsl_model** model);
int64_t fsl_model_version(const fsl_model* model);
int64_t fsl_model_max_rows(const fsl_model* model); /* 0: the model has no batch dimension */
size_t fsl_model_inputs(const fsl_model* model);
size_t fsl_model_outputs(const fsl_model* model);
fsl_code fsl_model_input(const fsl_model* model, size_t index, fsl_tensor* tensor);
fsl_code fsl_model_output(const fsl_model* model, size_t index, fsl_tensor* tensor);

/* For all inputs and outputs of a model whose signature leaves nothing open but the rows. */
fsl_code fsl_slot_create(fsl_connection* connection, const fsl_model* model, int64_t rows, fsl_slot** slot);
/* For these inputs and outputs only. */
fsl_code fsl_slot_create_planned(fsl_connection* connection, const fsl_model* model, const fsl_plan* inputs,
                                 size_t input_count, const fsl_plan* outputs, size_t output_count,
                                 fsl_slot** slot);
/* May be in flight: its memory is used again when it was answered. */
void fsl_slot_release(fsl_connection* connection, fsl_slot* slot);
/* 64-byte aligned, shared with the server. `bytes` may be NULL. NULL: there is no such input. */
void* fsl_slot_input(fsl_slot* slot, size_t index, size_t* bytes);
/* Another shape or length than planned, within its room. */
fsl_code fsl_slot_reshape(fsl_connection* connection, fsl_slot* slot, size_t input, const int64_t* shape,
                          size_t rank, uint64_t bytes);
/* For the requests to come. `id`, "" = none. Timeouts in microseconds, 0 = none: until the answer; in the queue. */
void fsl_slot_set_id(fsl_slot* slot, const char* id);
void fsl_slot_set_priority(fsl_slot* slot, uint32_t priority);
void fsl_slot_set_timeout(fsl_slot* slot, uint64_t microseconds);
void fsl_slot_set_queue_timeout(fsl_slot* slot, uint64_t microseconds);
/* Instead of those that it had; copied. At most 64. */
fsl_code fsl_slot_set_parameters(fsl_connection* connection, fsl_slot* slot, const fsl_parameter* parameters,
                                 size_t count);
void fsl_slot_set_user(fsl_slot* slot, void* user);
void* fsl_slot_user(const fsl_slot* slot);

/* Does not wake the server: fsl_flush, fsl_wait and fsl_run do, once for all that was submitted.
 * FSL_RESOURCE_EXHAUSTED: as many as there are cells are in flight. */
fsl_code fsl_submit(fsl_connection* connection, fsl_slot* slot);
void fsl_flush(fsl_connection* connection);
/* Blocks until there is an answer, at most so long (UINT64_MAX: for ever). FSL_DEADLINE_EXCEEDED; FSL_ABORTED: a signal. */
fsl_code fsl_wait(fsl_connection* connection, uint64_t timeout_us);
/* *slot: the next that was answered, NULL when none was. Never blocks. */
fsl_code fsl_next(fsl_connection* connection, fsl_slot** slot);
/* Submits one and waits for its answer; no other may be in flight (FSL_FAILED_PRECONDITION). The answer's code. When the wait
 * ends before the answer, the request is cancelled and the slot stays in flight. */
fsl_code fsl_run(fsl_connection* connection, fsl_slot* slot, uint64_t timeout_us);
/* A wish: the slot is answered all the same. */
void fsl_cancel(fsl_connection* connection, fsl_slot* slot);

/* Of the last answer. */
fsl_code fsl_slot_code(const fsl_slot* slot);
const char* fsl_slot_message(const fsl_slot* slot);
size_t fsl_slot_outputs(const fsl_slot* slot);
/* What was written and as what; `tensor` may be NULL. NULL: there is no such output. */
const void* fsl_slot_output(const fsl_slot* slot, size_t index, fsl_tensor* tensor);

/* What the model said beside its outputs. */
size_t fsl_slot_parameters(const fsl_slot* slot);
/* Its texts are valid until the slot's next answer. FSL_INVALID_ARGUMENT: there is no such parameter. */
fsl_code fsl_slot_parameter(const fsl_slot* slot, size_t index, fsl_parameter* parameter);

/* For poll(2) and its kin: after fsl_arm returned 1 the descriptor becomes readable when there are answers (or the server is
 * gone); then call fsl_woken and fsl_next until it has none. fsl_arm returning 0: there are answers already. */
int fsl_descriptor(const fsl_connection* connection);
int fsl_arm(fsl_connection* connection);
void fsl_woken(fsl_connection* connection);

#ifdef __cplusplus
}
#endif

#endif
