// Linked into test_openvino when a sanitizer is on: libraries that were opened stay. LeakSanitizer cannot name the frames
// of a library that is gone, so that tools/lsan.supp would not match what OpenVINO's plug-ins leave behind at exit.
extern "C" __attribute__((visibility("default"))) int dlclose(void* /*library*/) { return 0; }
