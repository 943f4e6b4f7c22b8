/** Of the Prometheus operator's PodMonitor the fields that the example can have; what is not here, is refused. */
export const podMonitorDefinition = {
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: { name: "podmonitors.monitoring.coreos.com" },
  spec: {
    group: "monitoring.coreos.com",
    names: { kind: "PodMonitor", plural: "podmonitors" },
    scope: "Namespaced",
    versions: [
      {
        name: "v1",
        served: true,
        storage: true,
        schema: {
          openAPIV3Schema: {
            type: "object",
            properties: {
              spec: {
                type: "object",
                required: ["podMetricsEndpoints", "selector"],
                properties: {
                  selector: {
                    type: "object",
                    properties: { matchLabels: { type: "object", additionalProperties: { type: "string" } } },
                  },
                  podMetricsEndpoints: {
                    type: "array",
                    items: {
                      type: "object",
                      properties: {
                        port: { type: "string" },
                        path: { type: "string" },
                        interval: { type: "string", pattern: "^([0-9]+(ms|[smhdwy]))+$" },
                        relabelings: {
                          type: "array",
                          items: {
                            type: "object",
                            properties: {
                              sourceLabels: { type: "array", items: { type: "string" } },
                              targetLabel: { type: "string" },
                            },
                          },
                        },
                      },
                    },
                  },
                },
              },
            },
          },
        },
      },
    ],
  },
};
