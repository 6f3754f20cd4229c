// Lets tensors of the device type "cuda" pass through a PyTorch that was built without CUDA: the
// guard that operators set around their work does nothing. Fake tensors have no memory, so nothing
// is ever computed.
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace c10::impl {
C10_REGISTER_GUARD_IMPL(CUDA, NoOpDeviceGuardImpl<DeviceType::CUDA>)
}
