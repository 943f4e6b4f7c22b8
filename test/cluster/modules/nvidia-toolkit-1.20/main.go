// What `nvidia-ctk runtime configure --runtime=containerd` does, by NVIDIA's own packages: FILE is read, and OUTPUT gets a
// copy of all of the CRI plugin's section with the runtime nvidia; FILE then imports it. A program of its own, because
// nvidia-ctk itself needs a C compiler.
package main

import (
	"fmt"
	"os"

	"github.com/NVIDIA/nvidia-container-toolkit/pkg/config/engine/containerd"
	"github.com/NVIDIA/nvidia-container-toolkit/pkg/config/toml"
)

func configure(file, output string) error {
	config, err := containerd.New(
		containerd.WithTopLevelConfigPath(file),
		containerd.WithConfigSource(toml.FromFile(file)),
	)
	if err != nil {
		return err
	}
	if err := config.AddRuntime("nvidia", "/usr/bin/nvidia-container-runtime", false); err != nil {
		return err
	}
	_, err = config.Save(output)
	return err
}

func main() {
	if err := configure(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
