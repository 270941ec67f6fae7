from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import include, path
from django.views.generic import RedirectView

from detector import views

urlpatterns = [
    path("", include("detector.urls")),
    path("accounts/login/", views.LogIn.as_view(), name="login"),
    path("accounts/logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("accounts/signup/", views.signup, name="signup"),
    path("accounts/password/", views.PasswordChange.as_view(), name="password_change"),
    path("accounts/delete/", views.account_delete, name="account_delete"),
    # The admin's own form would take any number of guesses at the old password.
    path("admin/password_change/", RedirectView.as_view(pattern_name="password_change")),
    path("admin/", admin.site.urls),
]

handler400 = views.bad_request
handler403 = views.permission_denied
handler404 = views.page_not_found
handler500 = views.server_error
