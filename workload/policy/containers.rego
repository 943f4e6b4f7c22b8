# --- Containers

CreateContainerRequest := {"allowed": true, "ops": ops} if {
	count(CreateContainerRequest_broken) == 0
	ops := array.concat(
		[
			remember(concat(":", ["container", input.container_id]), container_key),
			remember("name", pod_name),
			remember("uid", pod_uid),
		],
		array.concat(
			[remember(concat(":", ["disk", volume]), path) | some volume, path in disks],
			[remember(concat(":", ["gpu", index]), container_key) | container.keeps_gpus; some index in gpus],
		),
	)
}

annotations := input.OCI.Annotations

container_key := "sandbox" if annotations["io.kubernetes.cri.container-type"] == "sandbox"

container_key := name if {
	annotations["io.kubernetes.cri.container-type"] == "container"
	name := annotations["io.kubernetes.cri.container-name"]
}

# Which container of the pod it claims to be. A name that the pod does not have leaves it undefined.
container := pod.containers[container_key]

pod_name := annotations["io.kubernetes.cri.sandbox-name"]

pod_uid := annotations["io.kubernetes.cri.sandbox-uid"]

root_path := concat("/", ["/run/kata-containers", input.container_id, "rootfs"])

# An id stands for one container for ever: nothing of an earlier one with the same id is reused.
CreateContainerRequest_broken contains "container_id" if not fresh_id

fresh_id if {
	is_id(input.container_id)
	not data.pstate[concat(":", ["container", input.container_id])]
}

CreateContainerRequest_broken contains "exec_id" if not exec_id_fits
CreateContainerRequest_broken contains "sandbox" if not belongs_to_sandbox
CreateContainerRequest_broken contains "container" if not container
CreateContainerRequest_broken contains "pod" if not belongs_to_pod
CreateContainerRequest_broken contains "annotations" if not annotations_fit
CreateContainerRequest_broken contains "args" if not args_fit
CreateContainerRequest_broken contains "env" if not own_env_fits
CreateContainerRequest_broken contains "cwd" if not cwd_fits
CreateContainerRequest_broken contains "user" if not own_user_fits
CreateContainerRequest_broken contains "capabilities" if not capabilities_fit
CreateContainerRequest_broken contains "process" if not process_fits
CreateContainerRequest_broken contains "root" if {
	not input.OCI.Root == {"Path": root_path, "Readonly": container.readonly_root}
}
CreateContainerRequest_broken contains "hostname" if not hostname_fits
CreateContainerRequest_broken contains "mounts" if not mounts_fit
CreateContainerRequest_broken contains "storages" if not storages_fit
CreateContainerRequest_broken contains "disks" if not disks_fit
CreateContainerRequest_broken contains "devices" if not devices_fit
CreateContainerRequest_broken contains "gpus" if not gpus_fit
CreateContainerRequest_broken contains "namespaces" if not namespaces_fit
CreateContainerRequest_broken contains "sysctl" if not sysctls_fit
CreateContainerRequest_broken contains "paths" if not paths_fit
CreateContainerRequest_broken contains "cgroup" if not cgroup_fits
CreateContainerRequest_broken contains "resources" if not resources_fit(input.OCI.Linux.Resources)
CreateContainerRequest_broken contains "linux" if not linux_fits
CreateContainerRequest_broken contains "oci" if not oci_fits
CreateContainerRequest_broken contains "request" if not request_fits

exec_id_fits if input.exec_id == replace(pod.exec_id, "{id}", input.container_id)

belongs_to_sandbox if {
	annotations["io.kubernetes.cri.sandbox-id"] == data.pstate.sandbox
	container_key == "sandbox"
	input.container_id == data.pstate.sandbox
}

belongs_to_sandbox if {
	annotations["io.kubernetes.cri.sandbox-id"] == data.pstate.sandbox
	container_key != "sandbox"
	input.container_id != data.pstate.sandbox
}

belongs_to_pod if {
	regex.match(pod.name, pod_name)
	object.get(data.pstate, "name", pod_name) == pod_name
	annotations["io.kubernetes.cri.sandbox-namespace"] == pod.namespace
	regex.match(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`, pod_uid)
	object.get(data.pstate, "uid", pod_uid) == pod_uid
}

annotations_fit if {
	every key, value in annotations {
		annotation_fits(key, value)
	}
}

annotation_fits(key, value) if fits(container.annotations[key], value)

annotation_fits(key, _) if {
	startswith(key, gpu_annotation)
	gpus[trim_prefix(key, gpu_annotation)]
}

# The sandbox's process is none of these: the agent starts the one of its own pause image, whatever is asked for.
pauses if container.process == null

args_fit if pauses

args_fit if fits_all(container.process.args, input.OCI.Process.Args)

own_env_fits if pauses

own_env_fits if env_fits(container.process.env, input.OCI.Process.Env)

cwd_fits if pauses

cwd_fits if input.OCI.Process.Cwd == container.process.cwd

own_user_fits if pauses

own_user_fits if user_fits(container.process.user, input.OCI.Process.User)

capabilities_fit if pauses

capabilities_fit if {
	given := input.OCI.Process.Capabilities
	wanted := {name | some name in container.process.capabilities}
	every set in ["Bounding", "Effective", "Permitted"] {
		{name | some name in given[set]} == wanted
	}
	object.remove(given, ["Bounding", "Effective", "Permitted"]) == {"Ambient": [], "Inheritable": []}
}

process_fits if pauses

process_fits if {
	process := input.OCI.Process
	process.OOMScoreAdj >= -1000
	process.OOMScoreAdj <= 1000
	process.ConsoleSize in [null, {"Height": 0, "Width": 0}]
	process.ApparmorProfile in {"", "cri-containerd.apparmor.d"}
	object.remove(
		process,
		["Args", "Env", "Cwd", "User", "Capabilities", "OOMScoreAdj", "ConsoleSize", "ApparmorProfile"],
	) == {
		"NoNewPrivileges": container.process.no_new_privileges,
		"Rlimits": [],
		"SelinuxLabel": "",
		"Terminal": container.process.terminal,
	}
}

# All containers have the host name with which the sandbox was made, before its pod's name was known.
hostname_fits if {
	container_key == "sandbox"
	fits(pod.hostname, input.OCI.Hostname)
	fits(pod.hostname, data.pstate.hostname)
}

hostname_fits if {
	container_key != "sandbox"
	input.OCI.Hostname == ""
	fits(pod.hostname, data.pstate.hostname)
}

sysctls_fit if {
	every name, value in input.OCI.Linux.Sysctl {
		container.sysctls[name] == value
	}
	every name in container.required_sysctls {
		input.OCI.Linux.Sysctl[name]
	}
}

# runtime-rs hands on the cgroup namespace of hosts that have one.
namespaces_fit if {
	types := {type_of(one) | some one in input.OCI.Linux.Namespaces}
	types - {"cgroup"} == {"ipc", "mount", "uts"}
	count(input.OCI.Linux.Namespaces) == count(types)
	every one in input.OCI.Linux.Namespaces {
		object.remove(one, ["Type"]) == {"Path": ""}
	}
	input.sandbox_pidns == container.sandbox_pidns
}

# Both spellings are the same namespace to the agent.
type_of(one) := "mount" if one.Type == "mnt"

type_of(one) := one.Type if one.Type != "mnt"

# More may be hidden or made read-only: newer releases of containerd do.
paths_fit if {
	every path in container.masked_paths {
		path in input.OCI.Linux.MaskedPaths
	}
	every path in container.readonly_paths {
		path in array.concat(input.OCI.Linux.ReadonlyPaths, input.OCI.Linux.MaskedPaths)
	}
	every path in array.concat(input.OCI.Linux.ReadonlyPaths, input.OCI.Linux.MaskedPaths) {
		is_of_kernel(path)
	}
}

# A process' directory leads to the files of its container (/proc/self/root).
is_of_kernel(path) if {
	regex.match(`^/(proc|sys)(/[a-zA-Z0-9_-][a-zA-Z0-9_.:-]*)+$`, path)
	not regex.match(`^/proc/(self|thread-self|[0-9]+)(/|$)`, path)
}

# One of its own: another one's, or one of the guest's, would bring their processes into its reach, and their devices.
cgroup_fits if {
	path := input.OCI.Linux.CgroupsPath
	regex.match(`^[a-zA-Z0-9/:._-]{1,512}$`, path)
	not contains(path, "..")
	some before in ["/", ":"]
	endswith(path, concat("", [before, input.container_id]))
}

# Amounts of CPU and memory are the host's to give anyway.
resources_fit(given) if {
	object.remove(given, ["CPU", "Memory", "HugepageLimits"]) ==
		{"BlockIO": null, "Devices": [], "Network": null, "Pids": null}
	amounts_fit(
		given.CPU,
		{"Cpus", "Mems", "Period", "Quota", "RealtimePeriod", "RealtimeRuntime", "Shares"},
	)
	amounts_fit(
		given.Memory,
		{"DisableOOMKiller", "Kernel", "KernelTCP", "Limit", "Reservation", "Swap", "Swappiness"},
	)
	every limit in given.HugepageLimits {
		limit.Limit == 0
	}
}

amounts_fit(given, _) if given == null

amounts_fit(given, names) if object.keys(given) == names

linux_fits if {
	object.remove(
		input.OCI.Linux,
		["Namespaces", "Sysctl", "MaskedPaths", "ReadonlyPaths", "CgroupsPath", "Resources", "Devices"],
	) == {
		"GIDMappings": [],
		"IntelRdt": null,
		"MountLabel": "",
		"RootfsPropagation": "",
		"Seccomp": null,
		"UIDMappings": [],
	}
}

oci_fits if {
	regex.match(`^1\.[0-9]+\.[0-9]+(-dev|-rc\.[0-9]+)?$`, input.OCI.Version)
	object.remove(input.OCI, ["Version", "Process", "Root", "Hostname", "Mounts", "Annotations", "Linux"]) ==
		{"Hooks": null, "Solaris": null, "Windows": null}
}

request_fits if {
	object.remove(
		input,
		["OCI", "container_id", "exec_id", "devices", "storages", "sandbox_pidns"],
	) == {"shared_mounts": [], "stderr_port": 0, "stdin_port": 0, "stdout_port": 0, "string_user": null}
}

# --- Processes in a container

# A user that is not a container's, or what the container may not do either, is never started.
ExecProcessRequest if count(ExecProcessRequest_broken) == 0

known_key := data.pstate[concat(":", ["container", input.container_id])]

known := pod.containers[known_key]

ExecProcessRequest_broken contains "container" if not known_key
ExecProcessRequest_broken contains "command" if not command_allowed
ExecProcessRequest_broken contains "env" if not env_fits(exec_env, input.process.Env)
ExecProcessRequest_broken contains "cwd" if not input.process.Cwd == known.process.cwd
ExecProcessRequest_broken contains "user" if not user_fits(known.process.user, input.process.User)
ExecProcessRequest_broken contains "capabilities" if not exec_capabilities_fit
ExecProcessRequest_broken contains "process" if not exec_process_fits
ExecProcessRequest_broken contains "request" if {
	not object.remove(input, ["container_id", "exec_id", "process"]) ==
		{"stderr_port": 0, "stdin_port": 0, "stdout_port": 0, "string_user": null}
}
ExecProcessRequest_broken contains "exec_id" if not regex.match(`^[a-zA-Z0-9._-]{1,128}$`, input.exec_id)

exec_env := known.process.env if input.process.Terminal == false

# containerd sets it for every command with a terminal (container_execsync.go).
exec_env := object.union(known.process.env, {"TERM": "xterm"}) if input.process.Terminal == true

command_allowed if {
	some command in known.commands
	fits_all(command, input.process.Args)
	input.process.Terminal == false
}

command_allowed if {
	known_key != "sandbox"
	some command in pod.exec
	command == input.process.Args
}

exec_capabilities_fit if input.process.Capabilities == null

exec_capabilities_fit if {
	wanted := {name | some name in known.process.capabilities}
	every set in input.process.Capabilities {
		count({name | some name in set} - wanted) == 0
	}
}

exec_process_fits if {
	process := input.process
	process.ApparmorProfile in {"", "cri-containerd.apparmor.d"}
	process.ConsoleSize in [null, {"Height": 0, "Width": 0}]
	process.OOMScoreAdj >= -1000
	process.OOMScoreAdj <= 1000
	process.Rlimits == []
	process.SelinuxLabel == ""
	process.NoNewPrivileges in {false, known.process.no_new_privileges}
	object.keys(process) == {
		"ApparmorProfile", "Args", "Capabilities", "ConsoleSize", "Cwd", "Env",
		"NoNewPrivileges", "OOMScoreAdj", "Rlimits", "SelinuxLabel", "Terminal", "User",
	}
}

StartContainerRequest if known_key

RemoveContainerRequest if known_key

WaitProcessRequest if known_key

StatsContainerRequest if known_key

SignalProcessRequest if {
	known_key
	input.signal in pod.signals
}

ReadStreamRequest if {
	known_key
	pod.logs == true
}

TtyWinResizeRequest if {
	known_key
	known.process.terminal == true
}
