/* Request parameters of every kind, and those of the answer, over the local transport in C11: a test with a model that answers
 * with the parameters of its request.
 *
 *   local_parameters PATH MODEL     prints the answer's, one per line: "name kind value"
 */
#include <fastserve_local.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void give_up(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void print(const fsl_parameter* parameter) {
  printf("%s ", parameter->name);
  switch (parameter->kind) {
    case FSL_BOOL_VALUE:
      printf("bool %d\n", parameter->value.flag);
      break;
    case FSL_INT_VALUE:
      printf("int %" PRId64 "\n", parameter->value.integer);
      break;
    case FSL_UINT_VALUE:
      printf("uint %" PRIu64 "\n", parameter->value.natural);
      break;
    case FSL_DOUBLE_VALUE:
      printf("double %g\n", parameter->value.number);
      break;
    case FSL_TEXT_VALUE:
      printf("text %s\n", parameter->value.text);
      break;
  }
}

int main(int argc, char** argv) {
  if (argc != 3) give_up("arguments", "want PATH MODEL");
  fsl_connection* server = NULL;
  const fsl_model* model = NULL;
  fsl_slot* slot = NULL;
  if (fsl_connect(argv[1], NULL, &server) != FSL_OK) give_up("connect", fsl_connect_error());
  if (fsl_open(server, argv[2], NULL, &model) != FSL_OK) give_up("open", fsl_error(server));
  const fsl_plan in = {.index = 0, .rank = 2, .shape = {1, 2}}, out = {.index = 0, .bytes = 8};
  if (fsl_slot_create_planned(server, model, &in, 1, &out, 1, &slot) != FSL_OK)
    give_up("slot", fsl_error(server));
  float* x = fsl_slot_input(slot, 0, NULL);
  x[0] = 1;
  x[1] = 2;
  const fsl_parameter given[] = {{"flag", FSL_BOOL_VALUE, {.flag = 1}},
                                 {"low", FSL_INT_VALUE, {.integer = -5}},
                                 {"large", FSL_UINT_VALUE, {.natural = UINT64_MAX}},
                                 {"share", FSL_DOUBLE_VALUE, {.number = 0.25}},
                                 {"word", FSL_TEXT_VALUE, {.text = "text"}}};
  if (fsl_slot_set_parameters(server, slot, given, 5) != FSL_OK) give_up("parameters", fsl_error(server));
  fsl_parameter too_many[65];
  for (int i = 0; i < 65; ++i) too_many[i] = given[0];
  if (fsl_slot_set_parameters(server, slot, too_many, 65) != FSL_INVALID_ARGUMENT)
    give_up("parameters", "65 were taken");
  if (fsl_run(server, slot, 20000000) != FSL_OK) give_up("run", fsl_error(server));
  const float* y = fsl_slot_output(slot, 0, NULL);
  if (y == NULL || y[0] != 1 || y[1] != 2) give_up("answer", "other numbers than were sent");
  fsl_parameter parameter;
  for (size_t i = 0; i < fsl_slot_parameters(slot); ++i) {
    if (fsl_slot_parameter(slot, i, &parameter) != FSL_OK) give_up("parameter", "is not there");
    print(&parameter);
  }
  if (fsl_slot_parameter(slot, fsl_slot_parameters(slot), &parameter) != FSL_INVALID_ARGUMENT)
    give_up("parameter", "one too many");
  if (fsl_slot_set_parameters(server, slot, NULL, 0) != FSL_OK) give_up("parameters", fsl_error(server));
  if (fsl_run(server, slot, 20000000) != FSL_OK) give_up("run", fsl_error(server));
  printf("then %zu\n", fsl_slot_parameters(slot));
  fsl_close(server);
  return 0;
}
