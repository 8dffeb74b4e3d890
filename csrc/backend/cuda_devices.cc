#include "backend/cuda_devices.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>

#include "backend/cuda_driver.h"

namespace fastserve {
namespace {

// "GPU-8a3bd6e4-...": as nvidia-smi writes it.
std::string uuid_text(const CUuuid& uuid, const std::string& name) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string text = name.find("MIG ") != std::string::npos ? "MIG-" : "GPU-";
  for (std::size_t i = 0; i < sizeof uuid.bytes; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    const auto byte = static_cast<unsigned char>(uuid.bytes[i]);
    text += kHex[byte >> 4U];
    text += kHex[byte & 15U];
  }
  return text;
}

int read_memory_node(std::string pci) {
  std::ranges::transform(pci, pci.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  std::ifstream file("/sys/bus/pci/devices/" + pci + "/numa_node");
  int node = -1;
  return file >> node ? node : -1;
}

}  // namespace

Result<CudaDeviceFacts> read_cuda_device(int ordinal) {
  const Result<const DriverTable*>& opened = cuda_driver();
  if (!opened.is_ok()) return opened.status();
  const DriverTable& driver = *opened.value();
  int count = 0;
  FS_RETURN_IF_ERROR(to_status(driver.device_get_count(&count), "cuDeviceGetCount"));
  if (ordinal < 0 || ordinal >= count) {
    return Status(Code::kFailedPrecondition,
                  "gpu: got " + std::to_string(ordinal) + ", want " +
                      (count == 1 ? "0, the only one" : "0 to " + std::to_string(count - 1)));
  }
  CUdevice device = 0;
  FS_RETURN_IF_ERROR(to_status(driver.device_get(&device, ordinal), "cuDeviceGet"));
  std::array<char, 256> text{};
  CudaDeviceFacts facts;
  facts.ordinal = ordinal;
  FS_RETURN_IF_ERROR(to_status(driver.device_get_name(text.data(), static_cast<int>(text.size()), device),
                               "cuDeviceGetName"));
  facts.name = text.data();
  CUuuid uuid{};
  FS_RETURN_IF_ERROR(to_status(driver.device_get_uuid(&uuid, device), "cuDeviceGetUuid"));
  facts.uuid = uuid_text(uuid, facts.name);
  int major = 0;
  int minor = 0;
  FS_RETURN_IF_ERROR(
      to_status(driver.device_get_attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device),
                "cuDeviceGetAttribute"));
  FS_RETURN_IF_ERROR(
      to_status(driver.device_get_attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device),
                "cuDeviceGetAttribute"));
  facts.sm = major * 10 + minor;
  std::size_t total = 0;
  FS_RETURN_IF_ERROR(to_status(driver.device_total_mem(&total, device), "cuDeviceTotalMem"));
  facts.total_bytes = total;
  if (driver.device_get_pci_bus_id(text.data(), static_cast<int>(text.size()), device) == CUDA_SUCCESS) {
    facts.pci = text.data();
    facts.memory_node = read_memory_node(facts.pci);
  }
  return facts;
}

Result<std::vector<CudaDeviceFacts>> list_cuda_devices() {
  const Result<const DriverTable*>& opened = cuda_driver();
  if (!opened.is_ok()) return opened.status();
  int count = 0;
  FS_RETURN_IF_ERROR(to_status(opened.value()->device_get_count(&count), "cuDeviceGetCount"));
  if (count == 0)
    return Status(Code::kFailedPrecondition, "the NVIDIA driver knows no GPU that is visible here");
  std::vector<CudaDeviceFacts> devices;
  for (int i = 0; i < count; ++i) {
    FS_ASSIGN_OR_RETURN(CudaDeviceFacts facts, read_cuda_device(i));
    devices.push_back(std::move(facts));
  }
  return devices;
}

std::optional<int> find_cuda_device(std::span<const CudaDeviceFacts> devices, std::string_view asked) {
  std::optional<int> found;
  for (const CudaDeviceFacts& device : devices) {
    if (asked == std::to_string(device.ordinal) || asked == device.uuid) return device.ordinal;
    if (asked.size() < 5 || !device.uuid.starts_with(asked)) continue;  // "GPU-" and more
    if (found) return std::nullopt;
    found = device.ordinal;
  }
  return found;
}

std::string known_cuda_devices(std::span<const CudaDeviceFacts> devices) {
  std::string text;
  for (const CudaDeviceFacts& device : devices) {
    text += (text.empty() ? "" : ", ") + std::to_string(device.ordinal) + " (" + device.uuid + ")";
  }
  return text;
}

}  // namespace fastserve
