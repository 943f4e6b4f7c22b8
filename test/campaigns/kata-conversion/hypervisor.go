package virtcontainers

// In the place of Kata's hypervisor_linux.go while kata-conversion.ts builds: every hypervisor is the mock that Kata has for
// its own tests, with what QEMU can do, so that a sandbox needs no VM.

import (
	"context"
	"fmt"
	"os/exec"
	"sync"

	"github.com/kata-containers/kata-containers/src/runtime/pkg/device/config"
	govmm "github.com/kata-containers/kata-containers/src/runtime/pkg/govmm/qemu"
	"github.com/kata-containers/kata-containers/src/runtime/virtcontainers/types"
)

type vmless struct{ mockHypervisor }

func (v *vmless) Capabilities(ctx context.Context) types.Capabilities {
	arch := qemuAmd64{qemuArchBase: qemuArchBase{qemuMachine: govmm.Machine{Type: QemuQ35}}}
	return arch.capabilities(v.config)
}

// Kata wants a process that lives, and the shim kills it when it shuts down: it must not be the shim's own. It ends with the
// shim in any case, whose end of its input it reads.
var process = sync.OnceValue(func() *exec.Cmd {
	waiting := exec.Command("cat")
	if _, err := waiting.StdinPipe(); err != nil {
		panic(err)
	}
	if err := waiting.Start(); err != nil {
		panic(err)
	}
	return waiting
})

func (*vmless) GetPids() []int { return []int{process().Process.Pid} }

// Where QEMU would say that a device is: each behind its own root port, from slot 5 on.
func (*vmless) ResolveColdPlugVFIOGuestPciPaths(_ context.Context, devices []*config.VFIODev) error {
	for _, device := range devices {
		var port int
		if _, err := fmt.Sscanf(device.Bus, "rp%d", &port); err != nil {
			return err
		}
		path, err := types.PciPathFromString(fmt.Sprintf("%02x/00", port+5))
		if err != nil {
			return err
		}
		device.GuestPciPath = path
	}
	return nil
}

func NewHypervisor(HypervisorType) (Hypervisor, error) { return &vmless{}, nil }

func generateVMSocket(id string, _ string) (interface{}, error) {
	return types.MockHybridVSock{UdsPath: MockHybridVSockPath}, nil
}
