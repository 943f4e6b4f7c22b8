import type { KataRequest, OciSpec } from "./captured.ts";
import { execRequest } from "./kata-requests.ts";

const other = "f".repeat(64);

/** What a host might ask of a pod that has started; all of it is denied. `id` and `spec` are those of one of its containers. */
export function otherRequests(
  started: KataRequest[],
  id: string,
  spec: OciSpec,
): [what: string, request: KataRequest][] {
  const first = (kind: string, matching = (_: KataRequest) => true): KataRequest => {
    const found = started.find((request) => request.kind === kind && matching(request));
    if (found === undefined) throw new Error(`no ${kind}`);
    return structuredClone(found);
  };
  const one = (what: string, kind: string, input: KataRequest["input"]): [string, KataRequest] => [
    what,
    { kind, input },
  ];
  const process = execRequest(id, spec, ["cat", "/work/go"]);
  const exec = (what: string, changes: KataRequest["input"]): [string, KataRequest] => [
    what,
    { ...process, input: { ...process.input, process: { ...Object(process.input.process), ...changes } } },
  ];
  const file = first(
    "CopyFileRequest",
    ({ input }) => input.file_type === "Regular" && String(input.path).endsWith("-hosts"),
  );
  const link = first("CopyFileRequest", ({ input }) => input.file_type === "Symlink");
  const copy = (what: string, changes: KataRequest["input"], of = file): [string, KataRequest] => [
    what,
    { ...of, input: { ...of.input, ...changes } },
  ];
  const shared = "/run/kata-containers/shared/containers";
  const random = "0123456789abcdef";
  const network = first("UpdateInterfaceRequest").input.interface;
  const face = (what: string, changes: object): [string, KataRequest] =>
    one(what, "UpdateInterfaceRequest", { interface: { ...Object(network), ...changes } });
  const route = (what: string, changes: object): [string, KataRequest] =>
    one(what, "UpdateRoutesRequest", {
      routes: {
        Routes: [
          {
            dest: "",
            gateway: "10.0.0.1",
            device: "eth0",
            source: "",
            scope: 0,
            family: 0,
            flags: 0,
            mtu: 0,
            ...changes,
          },
        ],
      },
    });
  const neighbor = (what: string, changes: object): [string, KataRequest] =>
    one(what, "AddARPNeighborsRequest", {
      neighbors: {
        ARPNeighbors: [
          {
            toIPAddress: { family: 0, address: "10.0.0.1", mask: "" },
            device: "eth0",
            lladdr: "02:42:ac:11:00:01",
            state: 128,
            flags: 0,
            ...changes,
          },
        ],
      },
    });
  const of = { container_id: id };
  return [
    ["a second sandbox", first("CreateSandboxRequest")],
    ["the same container again", first("CreateContainerRequest", ({ input }) => input.container_id === id)],
    ["a shell", execRequest(id, spec, ["sh"])],
    ["a probe's command with more", execRequest(id, spec, ["cat", "/work/go", "/etc/login/password"])],
    ["a probe with a terminal", execRequest(id, spec, ["cat", "/work/go"], true)],
    ["a probe in a container that is not there", execRequest(other, spec, ["cat", "/work/go"])],
    exec("a probe as root", { User: { UID: 0, GID: 0, AdditionalGids: [], Username: "" } }),
    exec("a probe with another PATH", {
      Env: spec.process.env.map((text) => text.replace(/^PATH=.*/, "PATH=/memory")),
    }),
    exec("a probe elsewhere", { Cwd: "/memory" }),
    exec("a probe with capabilities", { Capabilities: { Bounding: ["CAP_SYS_ADMIN"] } }),
    exec("a probe with limits", { Rlimits: [{ Type: "RLIMIT_CORE", Hard: 1, Soft: 1 }] }),
    one("standard input", "WriteStreamRequest", { ...of, exec_id: id, data: [104, 105] }),
    one("the end of standard input", "CloseStdinRequest", { ...of, exec_id: id }),
    one("the log", "ReadStreamRequest", { ...of, exec_id: id, len: 1024 }),
    one("a terminal's size", "TtyWinResizeRequest", { ...of, exec_id: id, row: 1, column: 1 }),
    one("a signal that the image does not name", "SignalProcessRequest", { ...of, exec_id: id, signal: 10 }),
    one("the end of a container that is not there", "RemoveContainerRequest", { container_id: other, timeout: 0 }),
    one("the start of a container that is not there", "StartContainerRequest", { container_id: other }),
    one("figures of a container that is not there", "StatsContainerRequest", { container_id: other }),
    one("other resources", "UpdateContainerRequest", { ...of, resources: {} }),
    one("a pause", "PauseContainerRequest", of),
    one("a mount in the running sandbox", "UpdateEphemeralMountsRequest", { storages: [] }),
    one("another policy", "SetPolicyRequest", { policy: "package agent_policy" }),
    one("the logs of the guest", "GetDiagnosticDataRequest", { log_type: "x", container_id: id }),
    one("packet filters", "SetIPTablesRequest", { is_ipv6: false, data: [] }),
    one("another time", "SetGuestDateTimeRequest", { Sec: 1, Usec: 0 }),
    one("seeds for random numbers", "ReseedRandomDevRequest", { data: [0] }),
    one("swap", "AddSwapPathRequest", { path: "/dev/vda" }),
    one("memory", "MemHotplugByProbeRequest", { memHotplugProbeAddr: [1] }),
    one("what no Kata knows", "MountEverythingRequest", {}),
    copy("a file outside of the copies", { path: "/etc/hosts" }),
    copy("a file in the image", { path: `/run/kata-containers/${id}/rootfs/bin/httpd` }),
    copy("a file in the shared memory", { path: "/run/kata-containers/sandbox/shm/x" }),
    copy("a file above the copies", { path: `${shared}/${id}-${random}-hosts/../../x` }),
    copy("a file of a name that no mount has", { path: `${shared}/${id}-${random}-passwd` }),
    copy("a file below a file", { path: `${shared}/${id}-${random}-hosts/x` }),
    copy("a file of no container", { path: `${shared}/sandbox-${random}-hosts` }),
    copy("a file that runs as its owner", { file_mode: 0o104755 }),
    copy("a directory in place of a file", { file_type: "Directory", file_mode: 0o040755 }),
    copy("a link in place of a file", { file_type: "Symlink", file_mode: 0o120777, symlink_target: "..data/x" }),
    copy("a device", { file_type: "Unknown" }),
    copy("a link to the guest's root", { symlink_target: "/" }, link),
    copy("a link upwards", { symlink_target: "../../../x" }, link),
    copy("a link upwards behind kubelet's name", { symlink_target: "..data/../../x" }, link),
    face("the loopback device", { name: "lo", device: "lo" }),
    face("a loopback address", { IPAddresses: [{ family: 0, address: "127.0.0.1", mask: "8" }] }),
    face("a loopback address of IPv6 that ends as one of IPv4", {
      IPAddresses: [{ family: 1, address: "::0.0.0.1", mask: "128" }],
    }),
    face("a hardware address of zeros", { hwAddr: "00:00:00:00:00:00" }),
    face("a promiscuous device", { raw_flags: 0x100 }),
    route("a route over the loopback device", { device: "lo" }),
    route("a route for the loopback", { dest: "127.0.0.0/8" }),
    route("a route for the loopback of IPv6", { dest: "::1/128", family: 1 }),
    route("a route from the loopback", { source: "127.0.0.1" }),
    neighbor("a neighbour on the loopback device", { device: "lo" }),
    neighbor("a neighbour with the loopback's address", { toIPAddress: { family: 0, address: "127.0.0.1", mask: "" } }),
  ];
}
