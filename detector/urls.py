from django.urls import include, path

from detector import views

app_name = "detector"

detection_urls = [
    path("", views.detection_show, name="detection"),
    path("image/", views.detection_image, name="detection-image"),
    path("thumbnail/", views.detection_thumbnail, name="detection-thumbnail"),
    path("appeal/", views.detection_appeal, name="detection-appeal"),
    path("delete/", views.detection_delete, name="detection-delete"),
]

urlpatterns = [
    path("", views.upload, name="upload"),
    path("detections/<uuid:pk>/", include(detection_urls)),
    path("history/", views.history, name="history"),
    path("about/", views.about, name="about"),
    path("favicon.ico", views.favicon, name="favicon"),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("metrics", views.metrics_page, name="metrics"),
]
