// Built in Kata's own module by kata-conversion.ts. It makes Kata's shim create, start, probe and end the containers of a
// pod, as containerd asks for it, and is the agent that the shim talks to. Standard input: {"configuration": path of Kata's,
// "containers": [{"id", "bundle", "exec": [an OCI process]}], the sandbox's first, "podResources": {"socket", "containers": what
// kubelet says of their devices}}. Standard output: a line for each request
// that the agent got, {"kind": type, "input": its fields as the agent's JSON names them}.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/events"
	"github.com/containerd/containerd/namespaces"
	runtimeoptions "github.com/containerd/containerd/pkg/runtimeoptions/v1"
	containerd "github.com/containerd/containerd/runtime/v2/shim"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	shim "github.com/kata-containers/kata-containers/src/runtime/pkg/containerd-shim-v2"
	vc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers"
	agent "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"github.com/kata-containers/kata-containers/src/runtime/virtcontainers/utils"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

type job struct {
	Configuration string
	Containers    []struct {
		Id, Bundle string
		Exec       []json.RawMessage
	}
	PodResources struct {
		Socket     string
		Containers []*podresources.ContainerResources
	}
}

// kubelet, as far as Kata asks it for a pod's devices.
type kubelet struct {
	podresources.UnimplementedPodResourcesListerServer
	pod *podresources.PodResources
}

func (k *kubelet) Get(context.Context, *podresources.GetPodResourcesRequest) (*podresources.GetPodResourcesResponse, error) {
	return &podresources.GetPodResourcesResponse{PodResources: k.pod}, nil
}

func pretendKubelet(socket string, containers []*podresources.ContainerResources) {
	server := grpc.NewServer()
	podresources.RegisterPodResourcesListerServer(server, &kubelet{pod: &podresources.PodResources{Containers: containers}})
	go server.Serve(must(net.Listen("unix", socket)))
}

type nobody struct{}

func (nobody) Publish(context.Context, string, events.Event) error { return nil }
func (nobody) Close() error                                        { return nil }

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	var asked job
	check(json.NewDecoder(os.Stdin).Decode(&asked))
	// Looked for, and not used: the agent is at a Unix socket.
	utils.VHostVSockDevicePath = os.DevNull
	pretendAgent()
	if asked.PodResources.Socket != "" {
		pretendKubelet(asked.PodResources.Socket, asked.PodResources.Containers)
	}
	ctx, cancel := context.WithCancel(namespaces.WithNamespace(context.Background(), "k8s.io"))
	ctx = context.WithValue(ctx, containerd.OptsKey{}, containerd.Opts{})
	options := must(typeurl.MarshalAny(&runtimeoptions.Options{ConfigPath: asked.Configuration}))
	service := must(shim.New(ctx, asked.Containers[0].Id, nobody{}, cancel))
	for _, one := range asked.Containers {
		must(service.Create(ctx, &task.CreateTaskRequest{
			ID: one.Id, Bundle: one.Bundle, Options: &anypb.Any{TypeUrl: options.GetTypeUrl(), Value: options.GetValue()},
		}))
		must(service.Start(ctx, &task.StartRequest{ID: one.Id}))
		for index, process := range one.Exec {
			name := fmt.Sprintf("exec-%d", index)
			spec := &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", Value: process}
			must(service.Exec(ctx, &task.ExecProcessRequest{ID: one.Id, ExecID: name, Spec: spec}))
			must(service.Start(ctx, &task.StartRequest{ID: one.Id, ExecID: name}))
		}
		must(service.Stats(ctx, &task.StatsRequest{ID: one.Id}))
	}
	for index := len(asked.Containers) - 1; index >= 0; index-- {
		id := asked.Containers[index].Id
		must(service.Kill(ctx, &task.KillRequest{ID: id, Signal: 15}))
		must(service.Kill(ctx, &task.KillRequest{ID: id, Signal: 9, All: true}))
		must(service.Wait(ctx, &task.WaitRequest{ID: id}))
		remove(ctx, service, id)
	}
	service.Shutdown(ctx, &task.ShutdownRequest{ID: asked.Containers[0].Id})
}

// The shim says that a container has ended before it has stopped it in the guest, and until then refuses to remove it.
func remove(ctx context.Context, service containerd.Shim, id string) {
	for {
		_, err := service.Delete(ctx, &task.DeleteRequest{ID: id})
		if err == nil {
			return
		}
		fmt.Fprintln(os.Stderr, id, err)
		time.Sleep(10 * time.Millisecond)
	}
}

// One channel for each container, closed by the signal that ends it.
var ended sync.Map

func end(id string) chan struct{} {
	channel, _ := ended.LoadOrStore(id, make(chan struct{}))
	return channel.(chan struct{})
}

func pretendAgent() {
	check(os.RemoveAll(vc.MockHybridVSockPath))
	listener := must(net.Listen("unix", vc.MockHybridVSockPath))
	server := must(ttrpc.NewServer())
	var one sync.Mutex
	output := json.NewEncoder(os.Stdout)
	output.SetEscapeHTML(false)
	for _, file := range []protoreflect.FileDescriptor{
		(&agent.CreateSandboxRequest{}).ProtoReflect().Descriptor().ParentFile(),
		(&agent.CheckRequest{}).ProtoReflect().Descriptor().ParentFile(),
	} {
		for at := 0; at < file.Services().Len(); at++ {
			methods := map[string]ttrpc.Method{}
			descriptors := file.Services().Get(at).Methods()
			for at := 0; at < descriptors.Len(); at++ {
				method := descriptors.Get(at)
				input := must(protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName()))
				answered := must(protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName()))
				methods[string(method.Name())] = func(ctx context.Context, unmarshal func(interface{}) error) (interface{}, error) {
					request := input.New().Interface()
					if err := unmarshal(request); err != nil {
						return nil, err
					}
					one.Lock()
					check(output.Encode(map[string]any{"kind": method.Input().Name(), "input": fields(request.ProtoReflect())}))
					one.Unlock()
					return answer(ctx, request, answered.New().Interface())
				}
			}
			server.RegisterService(string(file.Services().Get(at).FullName()), &ttrpc.ServiceDesc{Methods: methods})
		}
	}
	go server.Serve(context.Background(), listener)
}

func answer(ctx context.Context, request proto.Message, empty proto.Message) (proto.Message, error) {
	switch asked := request.(type) {
	case *agent.UpdateInterfaceRequest:
		return asked.Interface, nil
	case *agent.UpdateRoutesRequest:
		return asked.Routes, nil
	case *agent.ReadStreamRequest:
		return nil, fmt.Errorf("EOF")
	case *agent.GuestDetailsRequest:
		return &agent.GuestDetailsResponse{AgentDetails: &agent.AgentDetails{Version: "0.0.0"}}, nil
	case *agent.SignalProcessRequest:
		if asked.Signal == 9 {
			if channel := end(asked.ContainerId); !closed(channel) {
				close(channel)
			}
		}
	case *agent.WaitProcessRequest:
		if asked.ExecId == asked.ContainerId {
			select {
			case <-end(asked.ContainerId):
			case <-ctx.Done():
			}
		}
	case *agent.GetOOMEventRequest:
		select {
		case <-ctx.Done():
		case <-time.After(time.Hour):
		}
	}
	return empty, nil
}

func closed(channel chan struct{}) bool {
	select {
	case <-channel:
		return true
	default:
		return false
	}
}

// As serde writes a message of rust-protobuf: every field, messages that are not there as null.
func fields(message protoreflect.Message) map[string]any {
	found := map[string]any{}
	all := message.Descriptor().Fields()
	for at := 0; at < all.Len(); at++ {
		field := all.Get(at)
		name := string(field.Name())
		if name == "type" {
			name = "type_"
		}
		value := message.Get(field)
		switch {
		case field.IsMap():
			entries := map[string]any{}
			value.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
				entries[key.String()] = single(field.MapValue(), value)
				return true
			})
			found[name] = entries
		case field.IsList():
			list := []any{}
			for at := 0; at < value.List().Len(); at++ {
				list = append(list, single(field, value.List().Get(at)))
			}
			found[name] = list
		case field.Message() != nil && !message.Has(field):
			found[name] = nil
		default:
			found[name] = single(field, value)
		}
	}
	return found
}

func single(field protoreflect.FieldDescriptor, value protoreflect.Value) any {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return fields(value.Message())
	case protoreflect.EnumKind:
		return value.Enum()
	case protoreflect.BytesKind:
		return base64.StdEncoding.EncodeToString(value.Bytes())
	default:
		return value.Interface()
	}
}
