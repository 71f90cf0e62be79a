{{/*
The template of the prefill Jobs. Headstart adds per attempt: name, labels, annotations, retry policy, and the task
(a ConfigMap, mounted). It refuses a template that contradicts its rules; see the crate `manifests`.
*/}}
{{- define "headstart.jobTemplate" -}}
{{- $prefill := .Values.prefill -}}
{{- $scope := dict "root" . "component" "prefill" "config" $prefill.config "managedBy" "headstart" -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "headstart.metadata" $scope | nindent 2 }}
spec:
  suspend: true
  backoffLimit: {{ $prefill.config.backoffLimit | int64 }}
  activeDeadlineSeconds: {{ $prefill.config.activeDeadlineSeconds | int64 }}
  template:
    metadata:
      {{- include "headstart.podMetadata" $scope | nindent 6 }}
    spec:
      restartPolicy: Never
      {{- $gone := list }}
      {{- range list "node.kubernetes.io/not-ready" "node.kubernetes.io/unreachable" }}
      {{- $gone = append $gone (dict "key" . "operator" "Exists" "effect" "NoExecute" "tolerationSeconds" ($prefill.nodeGoneSeconds | int64)) }}
      {{- end }}
      {{- include "headstart.pod" (merge (dict "moreTolerations" $gone) $scope) | nindent 6 }}
      containers:
        - name: prefill
          {{- include "headstart.container" $scope | nindent 10 }}
          args: [prefill]
          env:
            {{- include "headstart.env" $scope | nindent 12 }}
            {{- include "headstart.sourceEnv" . | nindent 12 }}
            - name: PREFILL_SHAPE
              value: {{ $prefill.config.shape }}
            - name: TERMINATION_LOG
              value: /dev/termination-log
            {{- with $prefill.extraEnvVars }}
            {{- tpl (toYaml .) $ | nindent 12 }}
            {{- end }}
          volumeMounts:
            {{- include "headstart.fileMounts" $scope | trim | nindent 12 }}
            {{- with $prefill.extraVolumeMounts }}
            {{- tpl (toYaml .) $ | nindent 12 }}
            {{- end }}
      volumes:
        {{- include "headstart.fileVolumes" $scope | trim | nindent 8 }}
        {{- with $prefill.extraVolumes }}
        {{- tpl (toYaml .) $ | nindent 8 }}
        {{- end }}
{{ end -}}
