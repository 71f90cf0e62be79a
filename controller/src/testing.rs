//! What several tests need.

/// A Job template as the chart renders it, as small as it may be.
pub(crate) const TEMPLATE: &str = "
apiVersion: batch/v1
kind: Job
metadata:
  labels: {app.kubernetes.io/name: headstart, app.kubernetes.io/instance: test}
spec:
  template:
    spec:
      containers:
        - name: prefill
          image: registry.example/headstart:1
          resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
";
