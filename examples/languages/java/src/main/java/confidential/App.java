package confidential;

import com.pulumi.Context;
import com.pulumi.Pulumi;
import com.pulumi.contrastruntime.ConfidentialWorkload;
import com.pulumi.contrastruntime.ConfidentialWorkloadArgs;
import com.pulumi.contrastruntime.ContrastRuntime;
import com.pulumi.contrastruntime.ContrastRuntimeArgs;
import com.pulumi.contrastruntime.ContrastruntimeFunctions;
import com.pulumi.contrastruntime.enums.DistributionName;
import com.pulumi.contrastruntime.enums.InitdataAlgorithm;
import com.pulumi.contrastruntime.enums.PlatformName;
import com.pulumi.contrastruntime.inputs.DistributionArgs;
import com.pulumi.contrastruntime.inputs.InitdataArgs;
import com.pulumi.contrastruntime.inputs.NodeGroupArgs;
import com.pulumi.contrastruntime.inputs.ReadManifestPlainArgs;
import com.pulumi.contrastruntime.inputs.RuntimeArgs;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** Confidential containers on two groups of nodes of an existing cluster, and a workload. */
public class App {
    public static void main(String[] args) {
        Pulumi.run(App::stack);
    }

    static void stack(Context context) {
        var config = context.config();
        var manifest = ContrastruntimeFunctions
            .readManifestPlain(ReadManifestPlainArgs.builder().path(config.require("payload")).build())
            .join()
            .manifest();

        var runtimes = RuntimeArgs.builder().platform(PlatformName.MetalQemuSnp).manifest(manifest).build();
        var runtime = new ContrastRuntime("confidential", ContrastRuntimeArgs.builder()
            .image(config.require("installerImage"))
            .groups(
                NodeGroupArgs.builder()
                    .group("workers")
                    .distribution(DistributionArgs.builder().name(DistributionName.Containerd).build())
                    .nodeSelector(Map.of("example.com/pool", "snp"))
                    .minimumNodes(0) // no node yet: leave it out where there are some
                    .runtimes(runtimes)
                    .build(),
                NodeGroupArgs.builder()
                    .group("edge")
                    .distribution(DistributionArgs.builder().name(DistributionName.K3s).build())
                    .nodeSelector(Map.of("example.com/pool", "edge"))
                    .minimumNodes(0)
                    .runtimes(runtimes)
                    .build())
            .build());

        var web = new ConfidentialWorkload("web", ConfidentialWorkloadArgs.builder()
            .platform(PlatformName.MetalQemuSnp)
            .manifest(manifest)
            // A pod template, with Kubernetes' own names. In a Deployment, the output `template` takes its place.
            .template(Map.of(
                "metadata", Map.of("labels", Map.of("app", "web")),
                "spec", Map.of("containers", List.of(Map.of(
                    "name", "web",
                    "image", "registry.example.com/web@sha256:" + "a".repeat(64),
                    "resources", Map.of("limits", Map.of("cpu", "1", "memory", "1Gi")))))))
            .initdata(InitdataArgs.builder()
                .algorithm(InitdataAlgorithm.Sha256)
                .data(Map.of("policy.rego", read("policy.rego")))
                .build())
            .build());

        // What pods set as runtimeClassName, by group.
        context.export("handlers", runtime.handlers());
        context.export("template", web.template());
        // What a verifier will see of the workload's pods.
        context.export("hostData", web.initdata().applyValue(digest -> digest.hostData()));
    }

    private static String read(String file) {
        try {
            return Files.readString(Path.of(file));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
