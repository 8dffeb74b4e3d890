/* One inference, then a throughput loop, over the local transport in C11: an example, and a test that the header is C.
 *
 *   local_example PATH MODEL [REQUESTS [IN_FLIGHT]]     inputs of FP32; each must come back as it went in (identity models)
 */
#include <fastserve_local.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void give_up(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void fill(fsl_slot* slot, float first) {
  size_t bytes = 0;
  float* input = fsl_slot_input(slot, 0, &bytes);
  for (size_t i = 0; i < bytes / sizeof(float); ++i) input[i] = first + (float)i;
}

static void check(const fsl_slot* slot, float first) {
  fsl_tensor tensor;
  if (fsl_slot_code(slot) != FSL_OK) give_up("answer", fsl_slot_message(slot));
  const float* output = fsl_slot_output(slot, 0, &tensor);
  if (output == NULL || tensor.dtype != FSL_FP32 || tensor.bytes == 0) give_up("answer", "no FP32 output");
  for (size_t i = 0; i < tensor.bytes / sizeof(float); ++i) {
    if (output[i] != first + (float)i) give_up("answer", "other numbers than were sent");
  }
}

static double seconds(void) {
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int main(int argc, char** argv) {
  if (argc < 3) give_up("arguments", "want PATH MODEL [REQUESTS [IN_FLIGHT]]");
  const long requests = argc > 3 ? atol(argv[3]) : 0;
  const long in_flight = argc > 4 ? atol(argv[4]) : 64;
  fsl_connection* server = NULL;
  const fsl_model* model = NULL;
  fsl_slot* one = NULL;
  if (fsl_connect(argv[1], NULL, &server) != FSL_OK) give_up("connect", fsl_connect_error());
  if (fsl_open(server, argv[2], NULL, &model) != FSL_OK) give_up("open", fsl_error(server));
  if (fsl_slot_create(server, model, 1, &one) != FSL_OK) give_up("slot", fsl_error(server));
  fill(one, 0.5F);
  const fsl_parameter parameters[] = {{"factor", FSL_DOUBLE_VALUE, {.number = 1.5}},
                                      {"word", FSL_TEXT_VALUE, {.text = "text"}}};
  if (fsl_slot_set_parameters(server, one, parameters, 2) != FSL_OK) give_up("parameters", fsl_error(server));
  if (fsl_run(server, one, 5000000) != FSL_OK) give_up("run", fsl_error(server));
  check(one, 0.5F);

  fsl_slot** slots = calloc((size_t)in_flight, sizeof(*slots));
  long sent = 0;
  const double began = seconds();
  for (; sent < in_flight && sent < requests; ++sent) {
    if (fsl_slot_create(server, model, 1, &slots[sent]) != FSL_OK) give_up("slot", fsl_error(server));
    fill(slots[sent], (float)sent);
    if (fsl_submit(server, slots[sent]) != FSL_OK) give_up("submit", fsl_error(server));
  }
  const long made = sent;
  for (long answered = 0; answered < requests;) {
    fsl_slot* slot = NULL;
    if (fsl_wait(server, 5000000) != FSL_OK) give_up("wait", fsl_error(server));
    while (fsl_next(server, &slot) == FSL_OK && slot != NULL) {
      ++answered;
      const float* input = fsl_slot_input(slot, 0, NULL);
      check(slot, input[0]);
      if (sent++ < requests && fsl_submit(server, slot) != FSL_OK) give_up("submit", fsl_error(server));
    }
  }
  printf("{\"requests\": %ld, \"seconds\": %.6f}\n", requests, seconds() - began);
  for (long i = 0; i < made; ++i) fsl_slot_release(server, slots[i]);
  free(slots);
  fsl_slot_release(server, one);
  fsl_close(server);
  return 0;
}
