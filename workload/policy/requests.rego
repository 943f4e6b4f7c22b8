# What Kata's agent in the guest of one pod does for its host. Shapes of requests: agent.proto and oci.proto of Kata 3.30 to
# 4.1, as the agent's JSON has them. `pod`, below these rules, says what this pod is.
#
# A request that is not a rule here is refused. The longer rules are sets of what is broken: a condition that cannot be
# evaluated is broken, too. `data.pstate` is what earlier requests left, and nothing is ever taken out of it.
package agent_policy

import rego.v1

default AllowRequestsFailingPolicy := false

# Nothing that pods on a static VM need, or that shows or changes more than one pod's own business.
default AddSwapPathRequest := false
default AddSwapRequest := false
default CloseStdinRequest := false
default GetDiagnosticDataRequest := false
default GetIPTablesRequest := false
default GetMetricsRequest := false
default ListInterfacesRequest := false
default ListRoutesRequest := false
default MemAgentCompactConfig := false
default MemAgentMemcgConfig := false
default MemHotplugByProbeRequest := false
default PauseContainerRequest := false
default ReseedRandomDevRequest := false
default ResizeVolumeRequest := false
default ResumeContainerRequest := false
default SetGuestDateTimeRequest := false
default SetIPTablesRequest := false
default SetPolicyRequest := false
default UpdateContainerRequest := false
default UpdateEphemeralMountsRequest := false
default VolumeStatsRequest := false
default WriteStreamRequest := false

# The host can do the same by ending the VM, or learns nothing of the pod.
default DestroySandboxRequest := true
default GetOOMEventRequest := true
default GuestDetailsRequest := true
default OnlineCPUMemRequest := true

# The agent looks at its mount points, no more; Kata's Go runtime cannot end a container without it.
default RemoveStaleVirtiofsShareMountsRequest := true

default AddARPNeighborsRequest := false
default CopyFileRequest := false
default CreateContainerRequest := false
default CreateSandboxRequest := false
default ExecProcessRequest := false
default ReadStreamRequest := false
default RemoveContainerRequest := false
default SignalProcessRequest := false
default StartContainerRequest := false
default StatsContainerRequest := false
default TtyWinResizeRequest := false
default UpdateInterfaceRequest := false
default UpdateRoutesRequest := false
default WaitProcessRequest := false

# --- The sandbox

CreateSandboxRequest := {"allowed": true, "ops": ops} if {
	count(CreateSandboxRequest_broken) == 0
	ops := [remember("sandbox", input.sandbox_id), remember("hostname", input.hostname)]
}

CreateSandboxRequest_broken contains "once" if data.pstate.sandbox
CreateSandboxRequest_broken contains "sandbox_id" if not is_id(input.sandbox_id)
CreateSandboxRequest_broken contains "hostname" if not regex.match(pod.sandbox_hostname, input.hostname)
CreateSandboxRequest_broken contains "dns" if not every_matches(input.dns, `^[ -~\t]{0,1024}$`)
CreateSandboxRequest_broken contains "storages" if not input.storages == [pod.shm]
CreateSandboxRequest_broken contains "else" if {
	not object.remove(input, ["sandbox_id", "hostname", "dns", "storages"]) ==
		{"sandbox_pidns": false, "guest_hook_path": "", "kernel_modules": []}
}

# --- Files

# The content is the host's; a file lies where one of the pod's mounts expects it, and nowhere else.
CopyFileRequest if {
	count(CopyFileRequest_broken) == 0
}

# The directory of an emptyDir, which the host makes for all containers, and puts nothing in.
CopyFileRequest if {
	regex.match(empty_directory({name | some name in pod.empty_directories}), input.path)
	input.file_type == "Directory"
	input.symlink_target == null
	CopyFileRequest_fields_fit
}

empty_directory(names) := concat("", [
	"^/run/kata-containers/shared/containers/sandbox-[0-9a-f]{16}-(",
	concat("|", names),
	")$",
]) if {
	count(names) > 0
}

CopyFileRequest_broken contains "path" if not copied
CopyFileRequest_broken contains "type" if not copied_type_fits
CopyFileRequest_broken contains "fields" if not CopyFileRequest_fields_fit

CopyFileRequest_fields_fit if {
	object.keys(input) == {
		"dir_mode", "file_mode", "file_size", "file_type", "gid", "offset", "path", "symlink_target", "uid",
	}
}

# [name, rest] of /run/kata-containers/shared/containers/ID-RANDOM-name/rest. No part of rest is "", "." or "..".
copied := [parts[1], parts[2]] if {
	pattern := concat("", [
		"^/run/kata-containers/shared/containers/[0-9a-f]{64}-[0-9a-f]{16}-(",
		concat("|", array.concat(pod.copied_files, pod.copied_directories)),
		")((?:/(?:[^/.]|\\.[^/.]|\\.\\.[^/])[^/]*)*)$",
	])
	parts := regex.find_all_string_submatch_n(pattern, input.path, -1)[0]
}

in_directory if {
	[name, rest] := copied
	some directory in pod.copied_directories
	regex.match(concat("", ["^", directory, "$"]), name)
	rest != ""
}

is_directory if {
	[name, _] := copied
	some directory in pod.copied_directories
	regex.match(concat("", ["^", directory, "$"]), name)
}

copied_type_fits if {
	input.file_type == "Regular"
	in_directory
	input.symlink_target == null
	bits.and(input.file_mode, 3072) == 0
}

copied_type_fits if {
	input.file_type == "Regular"
	[name, rest] := copied
	rest == ""
	some file in pod.copied_files
	regex.match(concat("", ["^", file, "$"]), name)
	input.symlink_target == null
	bits.and(input.file_mode, 3072) == 0
}

copied_type_fits if {
	input.file_type == "Directory"
	is_directory
	input.symlink_target == null
}

# The links that kubelet makes in such a directory: ..data -> ..2026_01_01_00_00_00.1, and file -> ..data/file.
copied_type_fits if {
	input.file_type == "Symlink"
	in_directory
	regex.match(`^(\.\.[0-9_]+\.[0-9]+|(\.\./)*\.\.data(/[^/]+)+)$`, input.symlink_target)
	not contains(input.symlink_target, "/../")
	not endswith(input.symlink_target, "/..")
	not startswith(input.symlink_target, "../")
}

# --- Network: addresses are the host's to give, but the guest talks to itself undisturbed

UpdateInterfaceRequest if {
	object.keys(input) == {"interface"}
	object.keys(input.interface) == {
		"IPAddresses", "device", "devicePath", "hwAddr", "mtu", "name", "raw_flags", "type_",
	}
	is_interface(input.interface.name)
	is_interface(input.interface.device)
	regex.match(`^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$`, input.interface.hwAddr)
	input.interface.hwAddr != "00:00:00:00:00:00"
	input.interface.raw_flags in {0, 128}
	every address in input.interface.IPAddresses {
		not is_loopback(address.address)
	}
}

UpdateRoutesRequest if {
	object.keys(input) == {"routes"}
	object.keys(input.routes) == {"Routes"}
	every route in input.routes.Routes {
		is_interface(route.device)
		not is_loopback(route.source)
		not is_loopback(route.dest)
	}
}

AddARPNeighborsRequest if {
	object.keys(input) == {"neighbors"}
	object.keys(input.neighbors) == {"ARPNeighbors"}
	every neighbor in input.neighbors.ARPNeighbors {
		is_interface(neighbor.device)
		not is_loopback(neighbor.toIPAddress.address)
		neighbor.state in {2, 128}
		neighbor.flags in {0, 8, 128, 136}
	}
}

is_interface(name) if {
	regex.match(`^[a-zA-Z][a-zA-Z0-9_.-]{0,14}$`, name)
	name != "lo"
}

is_loopback(address) if startswith(address, "127.")

is_loopback(address) if regex.match(`^(0{0,4}:){0,7}0{0,3}1(/|$)`, address)

is_loopback(address) if regex.match(`^[0:]+:0\.0\.0\.1(/|$)`, address)

is_loopback(address) if regex.match(`^[0:]*:[fF]{4}:(127\.|7[fF])`, address)

# --- Words

is_id(text) if regex.match(`^[0-9a-f]{64}$`, text)

remember(key, value) := {"op": "add", "path": concat("/", ["/pstate", key]), "value": value}

every_matches(texts, pattern) if {
	every text in texts {
		regex.match(pattern, text)
	}
}

# A text as it is, or {"like": an anchored pattern, in which {pod}, {uid} and {sandbox} stand for those of this pod}.
fits(wanted, text) if wanted == text

fits(wanted, text) if {
	pattern := replace(replace(wanted.like, "{pod}", replace(this_name, ".", "\\.")), "{uid}", this_uid)
	regex.match(pattern, text)
}

default this_uid := "-"

this_uid := pod_uid if is_string(pod_uid)

this_uid := data.pstate.uid if not annotations

default this_name := "-"

this_name := pod_name if is_string(pod_name)

this_name := data.pstate.name if not annotations

fits_all(wanted, texts) if {
	count(wanted) == count(texts)
	every index, text in texts {
		fits(wanted[index], text)
	}
}

user_fits(wanted, given) if {
	object.remove(given, ["AdditionalGids"]) == {"GID": wanted.gid, "UID": wanted.uid, "Username": ""}
	{group | some group in given.AdditionalGids} == {group | some group in wanted.groups}
}

# Each variable once; the container's own all there and as they are; beside them only addresses of services and the like.
env_fits(wanted, given) if {
	names := {split(variable, "=")[0] | some variable in given}
	count(names) == count(given)
	every name, value in wanted {
		some variable in given
		startswith(variable, concat("", [name, "="]))
		fits(value, substring(variable, count(name) + 1, -1))
	}
	further := [variable | some variable in given; not wanted[split(variable, "=")[0]]]
	every variable in further {
		not contains(variable, "\n")
	}
	regex.match(pod.further_variables, concat("", [concat("", [variable, "\n"]) | some variable in further]))
}
