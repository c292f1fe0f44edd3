// What launchers set, as they set it, and what contradicts itself.
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <shardwise/backends/process/environment.hpp>

using namespace shardwise;
using namespace shardwise::detail;

namespace {

using Variables = std::map<std::string, std::string>;
Variables variables;

const char* get_variable(const char* name) {
  const auto found = variables.find(name);
  return found == variables.end() ? nullptr : found->second.c_str();
}
LaunchEnvironment read(Variables set) {
  variables = std::move(set);
  return read_environment(&get_variable);
}
std::string refusal(Variables set) {
  try {
    read(std::move(set));
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

Variables with(Variables a, const Variables& b) {
  for (const auto& [name, value] : b) a[name] = value;
  return a;
}
Variables without(Variables a, const std::string& name) {
  a.erase(name);
  return a;
}

const Variables own = {{"SHARDWISE_RANK", "1"}, {"SHARDWISE_SIZE", "4"}, {"SHARDWISE_ADDRESS", "local:job"}};
const Variables torchrun = {{"RANK", "3"},
                            {"WORLD_SIZE", "4"},
                            {"LOCAL_RANK", "1"},
                            {"LOCAL_WORLD_SIZE", "2"},
                            {"MASTER_ADDR", "node7"},
                            {"MASTER_PORT", "29500"},
                            {"TORCHELASTIC_RUN_ID", "none"},
                            {"TORCHELASTIC_RESTART_COUNT", "2"},
                            {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
const Variables open_mpi = {{"OMPI_COMM_WORLD_RANK", "2"},       {"OMPI_COMM_WORLD_SIZE", "3"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "2"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "3"},
                            {"PMIX_NAMESPACE", "4242"},          {"PMIX_RANK", "2"}};
const Variables hydra = {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}};
const Variables slurm = {{"SLURM_PROCID", "4"},
                         {"SLURM_NTASKS", "5"},
                         {"SLURM_STEP_NUM_TASKS", "5"},
                         {"SLURM_LOCALID", "0"},
                         {"SLURM_NODEID", "2"},
                         {"SLURM_JOB_ID", "77"},
                         {"SLURM_STEP_ID", "3"},
                         {"SLURM_STEP_NUM_NODES", "3"},
                         {"SLURM_STEP_TASKS_PER_NODE", "2(x2),1"},
                         {"SLURM_STEP_NODELIST", "node[03-05]"}};

}  // namespace

TEST_CASE("without a launcher: a world of one") {
  const LaunchEnvironment e = read({});
  CHECK(e.rank == 0);
  CHECK(e.size == 1);
  CHECK(e.launcher == "none");
  CHECK(e.endpoint.empty());
  CHECK(read({{"PATH", "/bin"}, {"MASTER_ADDR", "x"}, {"LOCAL_RANK", "7"}}).size == 1);
}

TEST_CASE("our own variables come first") {
  const LaunchEnvironment e = read(with(with(own, torchrun), open_mpi));
  CHECK(e.rank == 1);
  CHECK(e.size == 4);
  CHECK(e.launcher == "SHARDWISE_RANK");
  CHECK(to_string(e.endpoint) == "local:job");
  const LaunchEnvironment more = read(with(own, {{"SHARDWISE_LOCAL_RANK", "1"},
                                                 {"SHARDWISE_LOCAL_SIZE", "2"},
                                                 {"SHARDWISE_ADDRESS", "[::1]:29500"},
                                                 {"SHARDWISE_LISTEN", "::"},
                                                 {"SHARDWISE_RUN_ID", "run"},
                                                 {"SHARDWISE_TOKEN", "secret"},
                                                 {"SHARDWISE_BACKEND", "gloo"},
                                                 {"SHARDWISE_HOST_ID", "blue"}}));
  CHECK(more.local_rank == 1);
  CHECK(more.local_size == 2);
  CHECK(more.endpoint.host == "::1");
  CHECK(more.endpoint.port == 29500);
  CHECK(more.endpoint.listen == "::");
  CHECK(more.run_id == "run");
  CHECK(more.token == "secret");
  CHECK(more.backend == "gloo");
  CHECK(more.host_id == "set:blue");
  CHECK(e.host_id == read({}).host_id);
  CHECK(e.host_id.size() > 8);
  CHECK_FALSE(e.host_id == more.host_id);
}

TEST_CASE("torchrun: its agent holds the port, so sixteen others are scanned") {
  const LaunchEnvironment e = read(torchrun);
  CHECK(e.rank == 3);
  CHECK(e.size == 4);
  CHECK(e.local_rank == 1);
  CHECK(e.local_size == 2);
  CHECK(e.launcher == "torchrun");
  CHECK(e.endpoint.host == "node7");
  CHECK(e.endpoint.port == 29501);
  CHECK(e.endpoint.ports == 16);
  CHECK(e.run_id == "torchrun-none-2-29500");
  const LaunchEnvironment plain = read(without(torchrun, "TORCHELASTIC_USE_AGENT_STORE"));
  CHECK(plain.endpoint.port == 29500);
  CHECK(plain.endpoint.ports == 1);
  CHECK(read(with(torchrun, {{"LOCAL_WORLD_SIZE", "4"}})).endpoint.host == "localhost");  // nobody else needs it
  CHECK(read(with(torchrun, {{"MASTER_PORT", "65530"}})).endpoint.port == 65520);
}

TEST_CASE("Open MPI, MPICH and Slurm on one host meet at a name that only their run has") {
  const LaunchEnvironment mpi = read(open_mpi);
  CHECK(mpi.rank == 2);
  CHECK(mpi.size == 3);
  CHECK(mpi.local_size == 3);
  CHECK(mpi.launcher == "Open MPI");
  CHECK(mpi.endpoint.local == "run-" + std::to_string(geteuid()) + "-pmix-4242");

  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  const LaunchEnvironment mpich = read(with(hydra, {{"PMI_FD", std::to_string(ends[0])}}));
  CHECK(mpich.launcher == "PMI");
  CHECK(mpich.rank == 1);
  CHECK(mpich.local_rank == 1);
  CHECK(mpich.endpoint.local ==
        "run-" + std::to_string(geteuid()) + "-pmi-" + std::to_string(getpid()));  // who made the pair
  CHECK(has(read(hydra).endpoint.local, "-pmi-" + std::to_string(getppid())));
  close(ends[0]);
  close(ends[1]);

  const LaunchEnvironment step = read(with(slurm, {{"SLURM_STEP_NUM_NODES", "1"}}));
  CHECK(step.launcher == "Slurm");
  CHECK(step.rank == 4);
  CHECK(step.size == 5);
  CHECK(step.local_size == 5);
  CHECK(has(step.endpoint.local, "-slurm-77.3"));
}

TEST_CASE("Slurm on several hosts meets on the step's first node; the others are told what is missing") {
  const LaunchEnvironment e = read(slurm);
  CHECK(e.local_rank == 0);
  CHECK(e.local_size == 1);
  CHECK(e.endpoint.host == "node03");
  CHECK(e.endpoint.ports == 16);
  CHECK(e.endpoint.port >= 20000);
  CHECK(e.endpoint.port < 30000);
  CHECK(e.run_id == "slurm-77.3");
  // columns: list, its first node
  const std::pair<const char*, const char*> lists[] = {{"a", "a"},           {"a,b", "a"},
                                                       {"a,b[1-2]", "a"},    {"a[7]", "a7"},
                                                       {"a[7,9]b,c", "a7b"}, {"a[001-100,7],b[1-2]", "a001"}};
  for (const auto& [list, first] : lists)
    CHECK(read(with(slurm, {{"SLURM_STEP_NODELIST", list}})).endpoint.host == first);
  CHECK(read(with(slurm, {{"SLURM_NODEID", "1"}})).local_size == 2);

  const LaunchEnvironment mpi =
      read(with(open_mpi, {{"OMPI_COMM_WORLD_LOCAL_SIZE", "1"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "0"}}));
  CHECK(mpi.endpoint.empty());
  CHECK(has(mpi.no_endpoint, "SHARDWISE_ADDRESS=HOST:PORT"));
  const LaunchEnvironment told = read(with(open_mpi, {{"MASTER_ADDR", "node1"}, {"MASTER_PORT", "1234"}}));
  CHECK(to_string(told.endpoint) == "node1:1234");
  CHECK(has(read(without(own, "SHARDWISE_ADDRESS")).no_endpoint, "nor whether all ranks share one host"));
}

TEST_CASE("a batch script of Slurm's is no rank, mpirun inside one wins, and so do agents inside steps") {
  const Variables script = with(without(slurm, "SLURM_STEP_ID"), {{"SLURM_PROCID", "0"}});
  CHECK(read(script).size == 1);
  CHECK(read(with(slurm, {{"SLURM_STEP_ID", "batch"}})).size == 1);
  CHECK(read(with(slurm, {{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_PROCID", "0"}})).size == 1);
  CHECK(read(with(slurm, open_mpi)).launcher == "Open MPI");
  CHECK(read(with(slurm, hydra)).launcher == "PMI");
  CHECK(read(with(slurm, torchrun)).launcher == "torchrun");
  CHECK(read(with(open_mpi, {{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}})).launcher == "Open MPI");
  CHECK(read(with(hydra, {{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}})).launcher == "PMI");
  // Slurm's own PMI says nothing about hosts: its other variables do
  const LaunchEnvironment pmi2 = read(with(slurm, {{"PMI_RANK", "4"}, {"PMI_SIZE", "5"}}));
  CHECK(pmi2.launcher == "PMI");
  CHECK(pmi2.local_size == 1);
  CHECK(pmi2.run_id == "slurm-77.3");
}

TEST_CASE("contradictions and what is no number are refused by name") {
  // columns: variables, what the message must hold
  const std::vector<std::pair<Variables, std::vector<std::string>>> cases = {
      {without(own, "SHARDWISE_SIZE"), {"SHARDWISE_RANK is set, SHARDWISE_SIZE is not"}},
      {without(own, "SHARDWISE_RANK"), {"SHARDWISE_SIZE is set, SHARDWISE_RANK is not"}},
      {with(own, {{"SHARDWISE_RANK", "4"}}), {"SHARDWISE_RANK is 4, but SHARDWISE_SIZE is 4"}},
      {with(own, {{"SHARDWISE_RANK", "-1"}}), {"SHARDWISE_RANK is '-1'"}},
      {with(own, {{"SHARDWISE_SIZE", "4x"}}), {"SHARDWISE_SIZE is '4x'"}},
      {with(own, {{"SHARDWISE_SIZE", "99999999999"}}), {"SHARDWISE_SIZE is '99999999999'"}},
      {with(own, {{"SHARDWISE_LOCAL_SIZE", "5"}}), {"SHARDWISE_LOCAL_SIZE is 5, more than SHARDWISE_SIZE"}},
      {with(own, {{"SHARDWISE_LOCAL_SIZE", "2"}, {"SHARDWISE_LOCAL_RANK", "2"}}),
       {"SHARDWISE_LOCAL_RANK is 2, but SHARDWISE_LOCAL_SIZE is 2"}},
      {with(own, {{"SHARDWISE_ADDRESS", "node1"}}), {"SHARDWISE_ADDRESS is 'node1'"}},
      {with(own, {{"SHARDWISE_BACKEND", "ucx"}}), {"SHARDWISE_BACKEND is 'ucx', not thread, gloo, mpi or nccl"}},
      {with(own, {{"SHARDWISE_TOKEN", "a"}, {"SHARDWISE_TOKEN_FILE", "b"}}),
       {"SHARDWISE_TOKEN", "SHARDWISE_TOKEN_FILE"}},
      {with(own, {{"SHARDWISE_TOKEN_FILE", "/nowhere"}}), {"SHARDWISE_TOKEN_FILE is '/nowhere'", "No such file"}},
      {with(torchrun, {{"MASTER_PORT", "port"}}), {"MASTER_PORT is 'port'"}},
      {with(torchrun, {{"MASTER_PORT", "70000"}}), {"MASTER_PORT is 70000"}},
      {without(torchrun, "MASTER_ADDR"), {"RANK and WORLD_SIZE are set, MASTER_ADDR is not"}},
      {without(torchrun, "MASTER_PORT"), {"MASTER_PORT is not"}},
      {without(torchrun, "WORLD_SIZE"), {"RANK is set, WORLD_SIZE is not"}},
      {with(without(torchrun, "TORCHELASTIC_RUN_ID"), open_mpi), {"RANK=3", "WORLD_SIZE=4", "OMPI_COMM_WORLD_RANK=2"}},
      {with(open_mpi, hydra), {"OMPI_COMM_WORLD_SIZE=3", "PMI_SIZE=2"}},
  };
  for (const auto& [set, parts] : cases) {
    const std::string said = refusal(set);
    INFO(said);
    for (const std::string& part : parts) CHECK(has(said, part));
  }
}

TEST_CASE("the token comes from a file too, without the end of its line") {
  std::string path = (std::filesystem::temp_directory_path() / "shardwise-token-XXXXXX").string();
  const int fd = mkstemp(path.data());
  REQUIRE(fd >= 0);
  const auto fill = [&](const std::string& content) {
    REQUIRE(ftruncate(fd, 0) == 0);
    REQUIRE(pwrite(fd, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()));
  };
  const Variables from_file = with(own, {{"SHARDWISE_TOKEN_FILE", path}});
  fill("a secret\r\n");
  CHECK(read(from_file).token == "a secret");
  for (const std::string& bad : {std::string("\n\n"), std::string(5000, 'x')}) {
    fill(bad);
    CHECK(has(refusal(from_file), "a token has 1 to 4096 bytes"));
  }
  fill("secret");
  REQUIRE(fchmod(fd, 0644) == 0);
  std::string warned;
  {
    ScopedWarningHandler handler([&](std::string_view words) { warned += words; });
    CHECK(read(from_file).token == "secret");
  }
  CHECK(has(warned, "every user can read the token in '" + path + "'"));
  CHECK_FALSE(has(warned, "secret"));
  CHECK(has(refusal(with(own, {{"SHARDWISE_TOKEN_FILE", "/"}})), "directory"));
  close(fd);
  unlink(path.c_str());
}
