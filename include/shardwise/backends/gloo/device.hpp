// gloo_device: the network interface that this process' Gloo connections go through, one device an address and process.
// LoopTicker: keeps Gloo's event loop from sleeping while connections are made. Layer: backends/gloo.
#pragma once

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <gloo/transport/tcp/device.h>

#include <shardwise/backends/process/descriptor.hpp>
#include <shardwise/base/error.hpp>

namespace shardwise::detail {

// "127.0.0.1", "fe80::1" without a scope. Empty where it is no address.
inline std::string numeric_address(const sockaddr* address, socklen_t bytes) {
  char host[NI_MAXHOST];
  return getnameinfo(address, bytes, host, sizeof host, nullptr, 0, NI_NUMERICHOST) == 0 ? std::string(host)
                                                                                         : std::string();
}

// The address of an interface: IPv4 if it has one, else IPv6 beyond the link. Empty: no such interface, or no address.
inline std::string address_of_interface(const std::string& name) {
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return {};
  std::string v4, v6;
  for (const ifaddrs* i = all; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr || name != i->ifa_name) continue;
    if (i->ifa_addr->sa_family == AF_INET && v4.empty()) v4 = numeric_address(i->ifa_addr, sizeof(sockaddr_in));
    if (i->ifa_addr->sa_family == AF_INET6 && v6.empty()) {
      const auto* six = reinterpret_cast<const sockaddr_in6*>(i->ifa_addr);
      if (!IN6_IS_ADDR_LINKLOCAL(&six->sin6_addr)) v6 = numeric_address(i->ifa_addr, sizeof(sockaddr_in6));
    }
  }
  freeifaddrs(all);
  return v4.empty() ? v6 : v4;
}

// What SHARDWISE_GLOO_INTERFACE names, an interface or an address of this host, or else `otherwise`; as a number, since Gloo
// crashes on a name that it cannot resolve.
inline std::string gloo_address(const std::string& otherwise) {
  const char* const set = std::getenv("SHARDWISE_GLOO_INTERFACE");
  const bool is_set = set != nullptr && *set != '\0';
  const std::string wanted = is_set ? set : otherwise;
  const char* const source = is_set ? "SHARDWISE_GLOO_INTERFACE" : "the address for Gloo";
  if (if_nametoindex(wanted.c_str()) != 0) {
    const std::string address = address_of_interface(wanted);
    SHARDWISE_REQUIRE(!address.empty(), text("shardwise: ", source, " names the interface '", wanted,
                                             "', which has no address beyond its link"));
    return address;
  }
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  const int refused = getaddrinfo(wanted.c_str(), nullptr, &hints, &found);
  SHARDWISE_REQUIRE(refused == 0,
                    text("shardwise: ", source, " is '", wanted,
                         "', which is neither an interface nor an address of this host: ", gai_strerror(refused)));
  std::string address;
  for (const addrinfo* a = found; a != nullptr && address.empty(); a = a->ai_next) {
    const Descriptor probe(socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (probe && bind(probe.get(), a->ai_addr, a->ai_addrlen) == 0)
      address = numeric_address(a->ai_addr, a->ai_addrlen);
  }
  freeaddrinfo(found);
  SHARDWISE_REQUIRE(!address.empty(),
                    text("shardwise: ", source, " is '", wanted, "', which is no address of this host"));
  return address;
}

// A broken connection is an error, never a signal: Gloo writes without MSG_NOSIGNAL. A handler of the program's own stays.
inline void ignore_broken_pipes() {
  struct sigaction now{};
  if (sigaction(SIGPIPE, nullptr, &now) == 0 && now.sa_handler == SIG_DFL) std::signal(SIGPIPE, SIG_IGN);
}

// The same device for the same address: each has a thread.
inline std::shared_ptr<gloo::transport::Device> gloo_device(const std::string& address) {
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<gloo::transport::Device>> devices;
  const std::lock_guard lock(mutex);
  std::shared_ptr<gloo::transport::Device> device = devices[address].lock();
  if (device == nullptr) {
    ignore_broken_pipes();
    gloo::transport::tcp::attr attributes;
    attributes.hostname = address;
    device = gloo::transport::tcp::CreateDevice(attributes);
    devices[address] = device;
  }
  return device;
}

// Gloo waits for its event loop, which wakes each 10 ms, whenever it connects a pair or makes it synchronous: 20 ms a peer. Here
// it wakes each half millisecond.
class LoopTicker final : gloo::transport::tcp::Handler {
 public:
  explicit LoopTicker(gloo::transport::Device& device)
      : device_(dynamic_cast<gloo::transport::tcp::Device*>(&device)),
        timer_(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) {
    const itimerspec each{{0, 500'000}, {0, 500'000}};
    if (device_ == nullptr || !timer_ || timerfd_settime(timer_.get(), 0, &each, nullptr) != 0) {
      device_ = nullptr;  // it only takes longer
      return;
    }
    device_->registerDescriptor(timer_.get(), EPOLLIN, this);
  }
  ~LoopTicker() override {
    if (device_ != nullptr) device_->unregisterDescriptor(timer_.get(), this);
    const std::lock_guard after_the_last_event(mutex_);
  }
  LoopTicker(const LoopTicker&) = delete;
  LoopTicker& operator=(const LoopTicker&) = delete;

 private:
  void handleEvents(int) override {
    const std::lock_guard lock(mutex_);
    std::uint64_t ticks = 0;
    if (read(timer_.get(), &ticks, sizeof ticks) < 0) return;
  }

  gloo::transport::tcp::Device* device_;
  Descriptor timer_;
  std::mutex mutex_;
};

}  // namespace shardwise::detail
