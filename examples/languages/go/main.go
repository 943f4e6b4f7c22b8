// Confidential containers on two groups of nodes of an existing cluster, and a workload.
package main

import (
	"os"
	"strings"

	contrast "example.com/pulumi-contrast-runtime/sdk/go/contrastruntime"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi/config"
)

func main() {
	pulumi.Run(func(ctx *pulumi.Context) error {
		settings := config.New(ctx, "")
		read, err := contrast.ReadManifest(ctx, &contrast.ReadManifestArgs{Path: settings.Require("payload")})
		if err != nil {
			return err
		}
		manifest := map[string]pulumi.Input{}
		for key, value := range read.Manifest {
			manifest[key] = pulumi.Any(value)
		}

		runtimes := []contrast.RuntimeArgs{{Platform: contrast.PlatformNameMetalQemuSnp, Manifest: manifest}}
		runtime, err := contrast.NewContrastRuntime(ctx, "confidential", &contrast.ContrastRuntimeArgs{
			Image: pulumi.String(settings.Require("installerImage")),
			Groups: []contrast.NodeGroupArgs{
				{
					Group:        "workers",
					Distribution: contrast.DistributionArgs{Name: contrast.DistributionNameContainerd},
					NodeSelector: pulumi.StringMap{"example.com/pool": pulumi.String("snp")},
					MinimumNodes: pulumi.Int(0), // no node yet: leave it out where there are some
					Runtimes:     runtimes,
				},
				{
					Group:        "edge",
					Distribution: contrast.DistributionArgs{Name: contrast.DistributionNameK3s},
					NodeSelector: pulumi.StringMap{"example.com/pool": pulumi.String("edge")},
					MinimumNodes: pulumi.Int(0),
					Runtimes:     runtimes,
				},
			},
		})
		if err != nil {
			return err
		}

		policy, err := os.ReadFile("policy.rego")
		if err != nil {
			return err
		}
		web, err := contrast.NewConfidentialWorkload(ctx, "web", &contrast.ConfidentialWorkloadArgs{
			Platform: contrast.PlatformNameMetalQemuSnp,
			Manifest: manifest,
			// A pod template, with Kubernetes' own names. In a Deployment, the output Template takes its place.
			Template: pulumi.Map{
				"metadata": pulumi.Map{"labels": pulumi.StringMap{"app": pulumi.String("web")}},
				"spec": pulumi.Map{"containers": pulumi.MapArray{pulumi.Map{
					"name":      pulumi.String("web"),
					"image":     pulumi.String("registry.example.com/web@sha256:" + strings.Repeat("a", 64)),
					"resources": pulumi.Map{"limits": pulumi.StringMap{"cpu": pulumi.String("1"), "memory": pulumi.String("1Gi")}},
				}}},
			},
			Initdata: contrast.InitdataArgs{
				Algorithm: contrast.InitdataAlgorithmSha256,
				Data:      map[string]pulumi.StringInput{"policy.rego": pulumi.String(policy)},
			},
		})
		if err != nil {
			return err
		}

		// What pods set as runtimeClassName, by group.
		ctx.Export("handlers", runtime.Handlers)
		ctx.Export("template", web.Template)
		// What a verifier will see of the workload's pods.
		ctx.Export("initdata", web.Initdata)
		ctx.Export("reference", web.Reference)
		return nil
	})
}
