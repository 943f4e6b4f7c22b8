# --- Mounts, and what is mounted

# Each mount is one of the container's, at most once, and none hides an earlier one.
mounts_fit if {
	given := input.OCI.Mounts
	count(given) == count(container.mounts)
	count({mount.destination | some mount in given}) == count(given)
	every mount in given {
		mount_fits(mount)
	}
	every later, mount in given {
		every earlier, other in given {
			not hides(later, mount, earlier, other)
		}
	}
}

hides(later, mount, earlier, other) if {
	earlier < later
	startswith(other.destination, concat("", [trim_suffix(mount.destination, "/"), "/"]))
}

mount_fits(mount) if {
	some wanted in container.mounts
	mount.destination == wanted.destination
	mount.type_ == wanted.type_
	{option | some option in mount.options} == {option | some option in wanted.options}
	object.remove(mount, ["destination", "type_", "options", "source"]) == {}
	source_fits(wanted, mount.source)
}

source_fits(wanted, source) if wanted.source == source

# Files that the host copies into the guest, for this container alone.
source_fits(wanted, source) if {
	prefix := concat("", ["/run/kata-containers/shared/containers/", input.container_id, "-"])
	startswith(source, prefix)
	regex.match(concat("", ["^[0-9a-f]{16}-", wanted.copy, "$"]), trim_prefix(source, prefix))
}

# An encrypted disk, or a directory: see `disks`.
source_fits(wanted, source) if disks[wanted.disk] == source

source_fits(wanted, source) if disks[wanted.directory] == source

# Volume of this container -> where its disk is mounted, or where its directory is, as the request has it.
disks[volume] := mount.source if {
	some wanted in container.mounts
	some mount in input.OCI.Mounts
	mount.destination == wanted.destination
	volume := object.get(wanted, "disk", object.get(wanted, "directory", ""))
	volume != ""
}

place_fits(volume, path) if {
	not volume in pod.empty_directories
	regex.match(`^/run/kata-containers/sandbox/storage/[A-Za-z0-9_=-]+$`, path)
}

place_fits(volume, path) if {
	volume in pod.empty_directories
	regex.match(empty_directory({volume}), path)
}

# A volume is at the same place in all containers, and no other volume's.
disks_fit if {
	count({path | some path in disks}) == count(disks)
	every volume, path in disks {
		place_fits(volume, path)
		object.get(data.pstate, concat(":", ["disk", volume]), path) == path
		every key, value in data.pstate {
			not taken_by_other(key, value, volume, path)
		}
	}
}

taken_by_other(key, value, volume, path) if {
	startswith(key, "disk:")
	value == path
	key != concat(":", ["disk", volume])
}

# Each storage is one of the container's, each of those is there, and each has a mount point of its own. The same one may be
# there twice: the agent makes it once.
storages_fit if {
	given := {storage | some storage in input.storages}
	every storage in given {
		storage_of(storage) >= 0
	}
	{storage_of(storage) | some storage in given} == {index | some index, _ in container.storages}
	count(given) == count(container.storages)
	count({storage.mount_point | some storage in given}) == count(given)
}

storage_of(storage) := index if {
	some index, wanted in container.storages
	storage_fits(wanted, storage)
}

storage_fits(wanted, storage) if storage == wanted.is

storage_fits(wanted, storage) if {
	wanted.image
	storage.source in wanted.image
	object.remove(storage, ["source", "driver_options"]) == {
		"driver": "image_guest_pull",
		"fs_group": null,
		"fstype": "overlay",
		"mount_point": root_path,
		"options": [],
		"shared": false,
	}
	described(storage)
}

described(storage) if {
	pod.image_metadata == false
	storage.driver_options == []
}

described(storage) if {
	pod.image_metadata == true
	count(storage.driver_options) == 1
	startswith(storage.driver_options[0], "image_guest_pull=")
	metadata := json.unmarshal(trim_prefix(storage.driver_options[0], "image_guest_pull="))
	object.remove(metadata, ["metadata"]) == {}

	# The agent takes the image in its own file system for a sandbox, and decides by these.
	every key, value in metadata.metadata {
		annotations[key] == value
	}
	metadata.metadata["io.kubernetes.cri.container-type"] == annotations["io.kubernetes.cri.container-type"]
}

# A disk that the host made for this pod: the agent encrypts it with a key of its own, and makes the file system.
storage_fits(wanted, storage) if {
	storage.mount_point == disks[wanted.disk]
	storage.mount_point == concat("/", ["/run/kata-containers/sandbox/storage", base64url.encode(storage.source)])
	object.remove(storage, ["source", "mount_point"]) == {
		"driver": pod.block_driver,
		"driver_options": ["encryption_key=ephemeral", "create_filesystem"],
		"fs_group": wanted.fs_group,
		"fstype": "ext4",
		"options": [],
		"shared": true,
	}
	is_block_address(storage.source)
}

is_block_address(text) if regex.match(`^[0-9]{1,5}:[0-9]{1,5}$`, text)

devices_fit if {
	blocks := [device | some device in input.devices; device.type_ == pod.block_driver]
	count(blocks) == count(container.devices)
	count(blocks) + count(passed) == count(input.devices)
	count(input.OCI.Linux.Devices) == count(container.devices)
	every path in container.devices {
		some device in blocks
		device.container_path == path
		is_block_address(device.id)
		object.remove(device, ["container_path", "id"]) == {"options": [], "type_": pod.block_driver, "vm_path": ""}
	}
	every path in container.devices {
		some device in input.OCI.Linux.Devices
		device.Path == path
		device.Type == "b"
	}
	every device in input.OCI.Linux.Devices {
		object.keys(device) == {"FileMode", "GID", "Major", "Minor", "Path", "Type", "UID"}
	}
}

# --- GPUs: the agent gives a container those that an annotation names, each by its number in the guest

gpu_annotation := "cdi.k8s.io/vfio"

# Number of the device file on the host -> which of the guest's GPUs.
gpus[number] := index if {
	container.gpus > 0
	some key, value in annotations
	number := trim_prefix(key, gpu_annotation)
	key == concat("", [gpu_annotation, number])
	is_number(number)
	index := trim_prefix(value, "nvidia.com/gpu=")
	value == concat("", ["nvidia.com/gpu=", index])
	is_number(index)
}

is_number(text) if regex.match(`^(0|[1-9][0-9]{0,4})$`, text)

passed := [device | some device in input.devices; device.type_ == "vfio-pci-gk"]

# As many as it asks for, and none that another container keeps.
gpus_fit if {
	count(gpus) == container.gpus
	count({index | some index in gpus}) == count(gpus)
	every index in gpus {
		not kept_by_other(index)
	}
	count({number_of(device) | some device in passed}) == count(passed)
	every device in passed {
		passed_device_fits(device)
	}
	count([device | some device in passed; not gpus[number_of(device)]]) <= container.further_devices
}

kept_by_other(index) if {
	container.keeps_gpus
	data.pstate[concat(":", ["gpu", index])] != container_key
}

number_of(device) := trim_prefix(device.id, "vfio")

# Devices of the VM, for the agent to wait for: it makes no file of them. Kata leaves out those whose place it does not know.
passed_device_fits(device) if {
	object.remove(device, ["container_path", "id", "options", "type_"]) == {"vm_path": ""}
	is_number(number_of(device))
	device.container_path in {
		concat("", ["/dev/vfio/devices/vfio", number_of(device)]),
		concat("", ["/dev/vfio/", number_of(device)]),
	}
	endswith(device.container_path, concat("", ["/", device.id]))
	count(device.options) > 0
	every option in device.options {
		regex.match(`^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]=[01][0-9a-f](/[01][0-9a-f]){0,7}$`, option)
	}
}
