// LaunchEnvironment: what a launcher tells a rank through its environment, whichever launcher it is. Layer: backends/process.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <shardwise/backends/process/descriptor.hpp>
#include <shardwise/backends/process/endpoint.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/warning.hpp>

namespace shardwise::detail {

struct LaunchEnvironment {
  int rank = 0;
  int size = 1;
  int local_rank = -1;  // among the ranks of this host; -1: the launcher does not say
  int local_size = -1;
  std::string launcher = "none";  // "SHARDWISE_RANK", "torchrun", "Open MPI", "PMI", "Slurm": whose variables were used
  Endpoint endpoint;  // where the ranks meet; empty: only in a world of one
  std::string no_endpoint;  // why it is empty, and what to set
  std::string run_id;  // what tells runs at one address apart
  std::string token;  // never to be shown
  std::string backend;  // SHARDWISE_BACKEND: "thread", "gloo", "mpi", "nccl" or empty
  std::string host_id;  // ranks with equal ones reach each other's memory
  bool by_mpi = false;  // MPI's own launcher, or one that serves MPI: its ranks find each other in MPI_Init
};

// Reads variables: the process' own, or a test's.
using GetVariable = const char* (*)(const char*);
inline const char* get_process_variable(const char* name) { return std::getenv(name); }

class EnvironmentReader {
 public:
  explicit EnvironmentReader(GetVariable get) : get_(get) {}

  // Throws: Error that names the variables.
  LaunchEnvironment read() {
    LaunchEnvironment e;
    const Place p = find_place();
    e.rank = p.rank, e.size = p.size, e.local_rank = p.local_rank, e.local_size = p.local_size;
    e.launcher = p.launcher;
    e.by_mpi =
        p.source == Source::open_mpi || p.source == Source::pmi || (p.source == Source::slurm && is_set("PMIX_RANK"));
    e.backend = text_of("SHARDWISE_BACKEND");
    SHARDWISE_REQUIRE(e.backend.empty() || e.backend == "thread" || e.backend == "gloo" || e.backend == "mpi" ||
                          e.backend == "nccl",
                      text("shardwise: SHARDWISE_BACKEND is '", e.backend, "', not thread, gloo, mpi or nccl"));
    e.token = read_token();
    e.host_id = is_set("SHARDWISE_HOST_ID") ? text("set:", text_of("SHARDWISE_HOST_ID")) : kernel_host_id();
    find_endpoint(p, e);
    find_run_id(p, e);
    return e;
  }

 private:
  enum class Source : unsigned char { none, own, torchrun, open_mpi, pmi, slurm };
  struct Place {
    Source source = Source::none;
    const char* launcher = "none";
    const char* rank_name = "";
    const char* size_name = "";
    int rank = 0;
    int size = 1;
    int local_rank = -1;
    int local_size = -1;
  };

  // ---- variables ------------------------------------------------------------------------------------------------
  bool is_set(const char* name) const {
    const char* const value = get_(name);
    return value != nullptr && *value != '\0';
  }
  std::string text_of(const char* name) const { return is_set(name) ? get_(name) : ""; }

  int number(const char* name, int low) const {
    const std::optional<int> n = parse_whole(text_of(name), low, 1 << 24);
    SHARDWISE_REQUIRE(n.has_value(),
                      text("shardwise: ", name, " is '", text_of(name), "', not a whole number from ", low, " on"));
    return *n;
  }
  std::optional<int> number_if_set(const char* name, int low) const {
    return is_set(name) ? std::optional<int>(number(name, low)) : std::nullopt;
  }

  // ---- rank and size --------------------------------------------------------------------------------------------
  std::optional<Place> pair(Source source, const char* launcher, const char* rank_name, const char* size_name,
                            const char* local_rank_name, const char* local_size_name) const {
    if (!is_set(rank_name) || !is_set(size_name)) return std::nullopt;
    Place p{source, launcher, rank_name, size_name, number(rank_name, 0), number(size_name, 1), -1, -1};
    SHARDWISE_REQUIRE(p.rank < p.size,
                      text("shardwise: ", rank_name, " is ", p.rank, ", but ", size_name, " is ", p.size));
    p.local_rank = number_if_set(local_rank_name, 0).value_or(-1);
    p.local_size = number_if_set(local_size_name, 1).value_or(-1);
    SHARDWISE_REQUIRE(p.local_size <= p.size, text("shardwise: ", local_size_name, " is ", p.local_size, ", more than ",
                                                   size_name, ", which is ", p.size));
    SHARDWISE_REQUIRE(
        p.local_size < 0 || p.local_rank < p.local_size,
        text("shardwise: ", local_rank_name, " is ", p.local_rank, ", but ", local_size_name, " is ", p.local_size));
    return p;
  }

  // One of two variables that mean nothing alone.
  void require_both(const char* a, const char* b) const {
    SHARDWISE_REQUIRE(is_set(a) == is_set(b), text("shardwise: ", is_set(a) ? a : b, " is set, ", is_set(a) ? b : a,
                                                   " is not: set both, or neither"));
  }

  Place find_place() const {
    require_both("SHARDWISE_RANK", "SHARDWISE_SIZE");
    if (const auto own = pair(Source::own, "SHARDWISE_RANK", "SHARDWISE_RANK", "SHARDWISE_SIZE", "SHARDWISE_LOCAL_RANK",
                              "SHARDWISE_LOCAL_SIZE"))
      return *own;
    const auto launched = find_launcher();
    const auto torchrun = pair(Source::torchrun, "torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE");
    if (torchrun && is_set("MASTER_ADDR") && is_set("MASTER_PORT")) {
      // An agent of torchrun's may itself be a rank of another launcher; variables set by hand beside one must agree with it.
      if (launched && launched->size > 1 && !is_set("TORCHELASTIC_RUN_ID")) require_equal(*torchrun, *launched);
      return *torchrun;
    }
    if (launched) return *launched;
    require_both("RANK", "WORLD_SIZE");
    SHARDWISE_REQUIRE(!torchrun, text("shardwise: RANK and WORLD_SIZE are set, ",
                                      is_set("MASTER_ADDR") ? "MASTER_PORT" : "MASTER_ADDR",
                                      " is not: set it too, or none of the four"));
    return {};
  }

  static void require_equal(const Place& a, const Place& b) {
    SHARDWISE_REQUIRE(a.rank == b.rank && a.size == b.size,
                      text("shardwise: ", a.rank_name, "=", a.rank, " and ", a.size_name, "=", a.size, " contradict ",
                           b.rank_name, "=", b.rank, " and ", b.size_name, "=", b.size,
                           ": unset one pair, or set SHARDWISE_RANK and SHARDWISE_SIZE"));
  }

  std::optional<Place> find_launcher() const {
    auto open_mpi = pair(Source::open_mpi, "Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                         "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE");
    auto pmi = pair(Source::pmi, "PMI", "PMI_RANK", "PMI_SIZE",
                    is_set("MPI_LOCALRANKID") ? "MPI_LOCALRANKID" : "PMI_LOCAL_RANK",
                    is_set("MPI_LOCALNRANKS") ? "MPI_LOCALNRANKS" : "PMI_LOCAL_SIZE");
    // A launcher inside another's step of one rank sees both.
    if (open_mpi && pmi && open_mpi->size > 1 && pmi->size > 1) require_equal(*open_mpi, *pmi);
    if (open_mpi && (open_mpi->size > 1 || !pmi)) return open_mpi;
    if (pmi) {
      if (is_slurm_step() && pmi->local_rank < 0) fill_from_slurm(*pmi);
      return pmi;
    }
    return is_slurm_step() ? std::optional<Place>(slurm_place()) : std::nullopt;
  }

  // ---- Slurm ----------------------------------------------------------------------------------------------------
  // A batch script has a rank and a number of tasks without being one of them; only a step's tasks are ranks.
  bool is_slurm_step() const {
    return parse_step(text_of("SLURM_STEP_ID")) && is_set("SLURM_PROCID") &&
           parse_whole(text_of("SLURM_STEP_NUM_TASKS"), 2, 1 << 24).has_value();
  }
  static bool parse_step(const std::string& id) {
    return !id.empty() && id.find_first_not_of("0123456789") == std::string::npos;
  }
  Place slurm_place() const {
    Place p = pair(Source::slurm, "Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "").value();
    fill_from_slurm(p);
    return p;
  }
  void fill_from_slurm(Place& p) const {
    if (is_set("SLURM_LOCALID")) p.local_rank = number("SLURM_LOCALID", 0);
    if (text_of("SLURM_STEP_NUM_NODES") == "1") p.local_size = p.size;
    if (p.local_size < 0 && is_set("SLURM_NODEID"))
      p.local_size = tasks_of_node(text_of("SLURM_STEP_TASKS_PER_NODE"), number("SLURM_NODEID", 0));
  }
  // "2(x3),1": two tasks on each of three nodes, then one on one. -1 where that says nothing about the node.
  static int tasks_of_node(std::string_view list, int node) {
    while (!list.empty()) {
      const std::string_view item = list.substr(0, list.find(','));
      list.remove_prefix(std::min(item.size() + 1, list.size()));
      const std::size_t bracket = item.find("(x");
      const auto tasks = parse_whole(item.substr(0, bracket), 1, 1 << 24);
      const auto nodes = bracket == std::string_view::npos
                             ? std::optional<int>(1)
                             : parse_whole(item.substr(bracket + 2, item.find(')') - bracket - 2), 1, 1 << 24);
      if (!tasks || !nodes) return -1;
      if (node < *nodes) return *tasks;
      node -= *nodes;
    }
    return -1;
  }
  // "node[03-05,9],x" -> "node03"
  static std::string first_node(std::string_view list) {
    const std::size_t bracket = list.find('['), comma = list.find(',');
    if (bracket == std::string_view::npos || comma < bracket) return std::string(list.substr(0, comma));
    const std::size_t closing = std::min(list.find(']', bracket), list.size() - 1);
    const std::string_view number = list.substr(bracket + 1, list.find_first_of("-,]", bracket) - bracket - 1);
    const std::string_view suffix = list.substr(closing + 1, list.find(',', closing) - closing - 1);
    return text(list.substr(0, bracket), number, suffix);
  }

  // ---- where to meet --------------------------------------------------------------------------------------------
  void find_endpoint(const Place& p, LaunchEnvironment& e) const {
    e.endpoint.listen = text_of("SHARDWISE_LISTEN");
    if (is_set("SHARDWISE_ADDRESS")) {
      const std::string listen = e.endpoint.listen;
      e.endpoint = parse_endpoint(text_of("SHARDWISE_ADDRESS"), "SHARDWISE_ADDRESS");
      e.endpoint.listen = listen;
      return;
    }
    if (e.size == 1) return;
    const bool one_host = e.local_size == e.size;
    if (is_set("MASTER_ADDR") && is_set("MASTER_PORT") && p.source != Source::own) {
      e.endpoint.host = text_of("MASTER_ADDR");
      e.endpoint.port = number("MASTER_PORT", 1);
      SHARDWISE_REQUIRE(e.endpoint.port <= 65535,
                        text("shardwise: MASTER_PORT is ", e.endpoint.port, ": a port is 1 to 65535"));
      // On one host nobody else needs to reach it, whatever the host calls itself.
      if (one_host && e.endpoint.listen.empty() && is_set("TORCHELASTIC_RUN_ID")) e.endpoint.host = "localhost";
      if (is_true("TORCHELASTIC_USE_AGENT_STORE")) scan_from(e.endpoint, e.endpoint.port + 1);
    } else if (one_host) {
      e.endpoint.local = text("run-", geteuid(), "-", local_job_name(p));
    } else if (p.source == Source::slurm && is_set("SLURM_STEP_NODELIST")) {
      e.endpoint.host = first_node(text_of("SLURM_STEP_NODELIST"));
      const std::string job = slurm_job();
      unsigned hash = 0;
      for (const char c : job) hash = hash * 31u + static_cast<unsigned char>(c);
      scan_from(e.endpoint, 20000 + static_cast<int>(hash % 10000));
    } else {
      e.no_endpoint = text("the variables of ", p.launcher, " do not say where rank 0 is",
                           p.local_size < 0 ? ", nor whether all ranks share one host" : "",
                           ": set SHARDWISE_ADDRESS=HOST:PORT on all ranks, HOST being rank 0's");
    }
  }

  // The launcher, or its agent, holds the port itself, or none was agreed on: the store takes one of the next sixteen.
  static void scan_from(Endpoint& e, int port) {
    e.ports = 16;
    e.port = std::min(port, 65536 - e.ports);
  }

  bool is_true(const char* name) const {
    const std::string value = text_of(name);
    return value == "True" || value == "true" || value == "1";
  }

  std::string slurm_job() const { return text("slurm-", text_of("SLURM_JOB_ID"), ".", text_of("SLURM_STEP_ID")); }

  // What the ranks of one run on one host share, and no other run has.
  std::string local_job_name(const Place& p) const {
    if (is_set("SHARDWISE_RUN_ID")) return text_of("SHARDWISE_RUN_ID").substr(0, 64);
    return job_name(p).substr(0, 64);
  }
  std::string job_name(const Place& p) const {
    if (p.source == Source::torchrun)  // the run id is "none" unless asked for: the port tells runs apart
      return text("torchrun-", text_of("TORCHELASTIC_RUN_ID"), "-", text_of("TORCHELASTIC_RESTART_COUNT"), "-",
                  text_of("MASTER_PORT"));
    if (p.source == Source::open_mpi && is_set("PMIX_NAMESPACE")) return text("pmix-", text_of("PMIX_NAMESPACE"));
    if ((p.source == Source::pmi || p.source == Source::slurm) && is_slurm_step()) return slurm_job();
    if (p.source == Source::pmi) return text("pmi-", launcher_process());
    if (p.source == Source::open_mpi) return text("ompi-", getppid());
    return "";
  }

  // Hydra gives its ranks one end of a pair of sockets; the kernel knows which process made it. Else it is the parent.
  int launcher_process() const {
    ucred maker{};
    socklen_t size = sizeof maker;
    const std::optional<int> fd = parse_whole(text_of("PMI_FD"), 0, 1 << 20);
    if (fd && getsockopt(*fd, SOL_SOCKET, SO_PEERCRED, &maker, &size) == 0 && maker.pid > 0) return maker.pid;
    return getppid();
  }

  void find_run_id(const Place& p, LaunchEnvironment& e) const {
    e.run_id = is_set("SHARDWISE_RUN_ID") ? text_of("SHARDWISE_RUN_ID") : job_name(p);
    // Processes of several hosts have several parents: nothing to tell runs apart by.
    if (!is_set("SHARDWISE_RUN_ID") && !e.endpoint.is_local() &&
        (e.run_id.substr(0, 4) == "pmi-" || e.run_id.substr(0, 5) == "ompi-"))
      e.run_id.clear();
    SHARDWISE_REQUIRE(e.run_id.size() <= 256,
                      text("shardwise: the run's id has ", e.run_id.size(), " bytes, at most 256 fit"));
  }

  // ---- the token ------------------------------------------------------------------------------------------------
  std::string read_token() const {
    SHARDWISE_REQUIRE(!is_set("SHARDWISE_TOKEN") || !is_set("SHARDWISE_TOKEN_FILE"),
                      "shardwise: both SHARDWISE_TOKEN and SHARDWISE_TOKEN_FILE are set: which one counts?");
    if (is_set("SHARDWISE_TOKEN")) return text_of("SHARDWISE_TOKEN");
    return is_set("SHARDWISE_TOKEN_FILE") ? read_token_file(text_of("SHARDWISE_TOKEN_FILE")) : "";
  }

  // The file without the white space at its end.
  static std::string read_token_file(const std::string& path) {
    const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    SHARDWISE_REQUIRE(bool(file), text("shardwise: SHARDWISE_TOKEN_FILE is '", path, "': ", system_text()));
    struct stat about{};
    if (fstat(file.get(), &about) == 0 && (about.st_mode & S_IROTH) != 0)
      warn(std::string(text("every user can read the token in '", path, "': chmod 600")));
    std::string token(4097, '\0');
    std::size_t got = 0;
    ssize_t n = 0;
    while (got < token.size() && (n = ::read(file.get(), token.data() + got, token.size() - got)) > 0)
      got += static_cast<std::size_t>(n);
    SHARDWISE_REQUIRE(n >= 0, text("shardwise: SHARDWISE_TOKEN_FILE is '", path, "': ", system_text()));
    token.resize(got);
    while (!token.empty() && std::strchr(" \t\r\n", token.back()) != nullptr) token.pop_back();
    SHARDWISE_REQUIRE(
        !token.empty() && token.size() <= 4096,
        text("shardwise: SHARDWISE_TOKEN_FILE is '", path, "': a token has 1 to 4096 bytes, not ", token.size()));
    return token;
  }

  // ---- the host -------------------------------------------------------------------------------------------------
  // One kernel since one boot, where ranks also find each other's local sockets and know each other's users.
  static std::string kernel_host_id() {
    std::string id;
    if (const Descriptor file(open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)); file) {
      char boot[64];
      const ssize_t n = ::read(file.get(), boot, sizeof boot);
      id.assign(boot, n > 0 ? static_cast<std::size_t>(n) : 0);
      while (!id.empty() && id.back() == '\n') id.pop_back();
    }
    if (id.empty()) {
      char name[256] = {};
      gethostname(name, sizeof name - 1);
      id = name;
    }
    for (const char* space : {"/proc/self/ns/net", "/proc/self/ns/user"}) {
      char link[64] = {};
      const ssize_t n = readlink(space, link, sizeof link - 1);
      if (n > 0) id += text("/", std::string_view(link, static_cast<std::size_t>(n)));
    }
    return id;
  }

  GetVariable get_;
};

// What this process' launcher says; a world of one where there is none. Throws: Error that names the variables which contradict
// each other or are no numbers.
inline LaunchEnvironment read_environment(GetVariable get = &get_process_variable) {
  return EnvironmentReader(get).read();
}

}  // namespace shardwise::detail
