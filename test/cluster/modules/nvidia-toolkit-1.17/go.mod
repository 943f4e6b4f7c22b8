module nvidia-toolkit-1.17

go 1.24

require github.com/NVIDIA/nvidia-container-toolkit v1.17.8

require (
	github.com/pelletier/go-toml v1.9.5 // indirect
	github.com/sirupsen/logrus v1.9.3 // indirect
	golang.org/x/sys v0.28.0 // indirect
)
