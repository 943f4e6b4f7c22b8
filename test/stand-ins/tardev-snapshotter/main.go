// A stand-in for AKS's tardev-snapshotter, which is not published: takes its arguments, and serves containerd's own
// overlay snapshotter over containerd's interface for proxy snapshotters.
package main

import (
	"log"
	"net"
	"os"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"google.golang.org/grpc"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatalf("usage: %s DIRECTORY SOCKET CONTAINERD", os.Args[0])
	}
	directory, socket, containerd := os.Args[1], os.Args[2], os.Args[3]
	// tardev reads images from containerd.
	connection, err := net.Dial("unix", containerd)
	if err != nil {
		log.Fatal(err)
	}
	connection.Close()
	snapshotter, err := overlay.NewSnapshotter(directory)
	if err != nil {
		log.Fatal(err)
	}
	// What a process that was killed has left.
	os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	api.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	log.Fatal(server.Serve(listener))
}
